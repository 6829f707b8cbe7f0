// Makes calls over grpc-go: client ADDRESS METHOD MESSAGE_HEX SECONDS CALLS CONCURRENCY prints {"ok", "failed"}.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = append([]byte(nil), data...); return nil }
func (raw) Name() string                       { return "proto" }

func main() {
	address, method := os.Args[1], os.Args[2]
	message, err := hex.DecodeString(os.Args[3])
	if err != nil {
		panic(err)
	}
	seconds, _ := strconv.ParseFloat(os.Args[4], 64)
	calls, _ := strconv.ParseInt(os.Args[5], 10, 64)
	concurrency, _ := strconv.Atoi(os.Args[6])
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{})))
	if err != nil {
		panic(err)
	}
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	var begun, ok atomic.Int64
	var lock sync.Mutex
	failed := map[string]int{}
	var group sync.WaitGroup
	for range concurrency {
		group.Add(1)
		go func() {
			defer group.Done()
			for time.Now().Before(end) && begun.Add(1) <= calls {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				var reply []byte
				if err := connection.Invoke(ctx, method, &message, &reply); err != nil {
					lock.Lock()
					failed[err.Error()]++
					lock.Unlock()
				} else {
					ok.Add(1)
				}
				cancel()
			}
		}()
	}
	group.Wait()
	connection.Close()
	result, _ := json.Marshal(map[string]any{"ok": ok.Load(), "failed": failed})
	fmt.Println(string(result))
}
