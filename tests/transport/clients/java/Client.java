import io.grpc.CallOptions;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.stub.ClientCalls;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.HexFormat;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/** Makes calls over grpc-java: ADDRESS METHOD MESSAGE_HEX SECONDS CALLS CONCURRENCY prints {"ok", "failed"}. */
public final class Client {
  private static final class Raw implements MethodDescriptor.Marshaller<byte[]> {
    @Override
    public InputStream stream(byte[] value) {
      return new ByteArrayInputStream(value);
    }

    @Override
    public byte[] parse(InputStream stream) {
      try {
        return stream.readAllBytes();
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    }
  }

  public static void main(String[] args) throws InterruptedException {
    byte[] message = HexFormat.of().parseHex(args[2]);
    long calls = Long.parseLong(args[4]);
    Thread[] threads = new Thread[Integer.parseInt(args[5])];
    MethodDescriptor<byte[], byte[]> method =
        MethodDescriptor.<byte[], byte[]>newBuilder(new Raw(), new Raw())
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName(args[1].substring(1))
            .build();
    ManagedChannel channel = Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
    // The first call takes as long as the classes take to load.
    ClientCalls.blockingUnaryCall(channel, method, CallOptions.DEFAULT.withDeadlineAfter(20, TimeUnit.SECONDS), message);
    AtomicLong begun = new AtomicLong(1);
    AtomicLong ok = new AtomicLong(1);
    long end = System.nanoTime() + (long) (Double.parseDouble(args[3]) * 1e9);
    Map<String, Integer> failed = new TreeMap<>();
    for (int i = 0; i < threads.length; i++) {
      threads[i] = new Thread(() -> {
        while (System.nanoTime() < end && begun.incrementAndGet() <= calls) {
          try {
            ClientCalls.blockingUnaryCall(
                channel, method, CallOptions.DEFAULT.withDeadlineAfter(20, TimeUnit.SECONDS), message);
            ok.incrementAndGet();
          } catch (RuntimeException error) {
            synchronized (failed) {
              failed.merge(String.valueOf(error.getMessage()).replace('"', '\''), 1, Integer::sum);
            }
          }
        }
      });
      threads[i].start();
    }
    for (Thread thread : threads) {
      thread.join();
    }
    channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    StringBuilder errors = new StringBuilder();
    failed.forEach((text, count) -> errors.append(errors.isEmpty() ? "" : ", ").append('"').append(text).append("\": ").append(count));
    System.out.println("{\"ok\": " + ok.get() + ", \"failed\": {" + errors + "}}");
  }
}
