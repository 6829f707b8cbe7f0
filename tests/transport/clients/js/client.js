// Makes calls over grpc-js: node client.js ADDRESS METHOD MESSAGE_HEX SECONDS CALLS CONCURRENCY prints {"ok", "failed"}.
const grpc = require("@grpc/grpc-js");

const [address, method, hex, seconds, calls, concurrency] = process.argv.slice(2);
const message = Buffer.from(hex, "hex");
const client = new grpc.Client(address, grpc.credentials.createInsecure());
const same = (bytes) => bytes;
const end = Date.now() + Number(seconds) * 1000;
const failed = {};
let begun = 0, open = 0, ok = 0;

function next() {
  if (Date.now() >= end || begun >= Number(calls)) {
    if (open === 0) {
      client.close();
      console.log(JSON.stringify({ ok, failed }));
    }
    return;
  }
  begun += 1;
  open += 1;
  client.makeUnaryRequest(method, same, same, message, { deadline: Date.now() + 20000 }, (error) => {
    open -= 1;
    if (error) failed[error.message] = (failed[error.message] || 0) + 1;
    else ok += 1;
    next();
  });
}

for (let i = 0; i < Number(concurrency); i += 1) next();
