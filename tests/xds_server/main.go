// An xDS server of go-control-plane, as Envoy Gateway runs it for the rate limit service.
//
// Each line of its input is JSON: {"version": V, "configs": [RateLimitConfig in protojson, ...]} sets the snapshot of the
// node, {"forget": true} removes it. It prints a line of JSON for each request of a stream, for each response just before
// it is sent, for each stream that ends, and one once it listens.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"sync"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	ratelimit "github.com/envoyproxy/go-control-plane/ratelimit/config/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protojson"
)

type command struct {
	Version string            `json:"version"`
	Configs []json.RawMessage `json:"configs"`
	Forget  bool              `json:"forget"`
}

type event struct {
	Event   string `json:"event"`
	Stream  int64  `json:"stream"`
	Node    string `json:"node,omitempty"`
	Version string `json:"version"`
	Nonce   string `json:"nonce"`
	Error   string `json:"error"`
}

var printing sync.Mutex

func report(e event) {
	printing.Lock()
	defer printing.Unlock()
	line, err := json.Marshal(e)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(line))
}

func snapshot(c command) (*cache.Snapshot, error) {
	resources := make([]types.Resource, 0, len(c.Configs))
	for _, config := range c.Configs {
		message := &ratelimit.RateLimitConfig{}
		if err := protojson.Unmarshal(config, message); err != nil {
			return nil, err
		}
		resources = append(resources, message)
	}
	return cache.NewSnapshot(c.Version, map[resource.Type][]types.Resource{resource.RateLimitConfigType: resources})
}

func mutual(cert, key, ca string) (credentials.TransportCredentials, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificates in " + ca)
	}
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		MinVersion:   tls.VersionTLS13,
	}), nil
}

func main() {
	listen := flag.String("listen", "127.0.0.1:18001", "HOST:PORT")
	node := flag.String("node", "envoy-ratelimit", "the ID of the node that the snapshots are for")
	cert := flag.String("cert", "", "a PEM file; without it there is no TLS")
	key := flag.String("key", "", "a PEM file")
	ca := flag.String("ca", "", "a PEM file: the CAs of clients")
	flag.Parse()

	var options []grpc.ServerOption
	if *cert != "" {
		credentials, err := mutual(*cert, *key, *ca)
		if err != nil {
			log.Fatal(err)
		}
		options = append(options, grpc.Creds(credentials))
	}
	snapshots := cache.NewSnapshotCache(false, cache.IDHash{}, nil)
	callbacks := server.CallbackFuncs{
		StreamRequestFunc: func(stream int64, r *discovery.DiscoveryRequest) error {
			report(event{
				Event: "request", Stream: stream, Node: r.GetNode().GetId(), Version: r.GetVersionInfo(),
				Nonce: r.GetResponseNonce(), Error: r.GetErrorDetail().GetMessage(),
			})
			return nil
		},
		StreamResponseFunc: func(
			_ context.Context, stream int64, _ *discovery.DiscoveryRequest, r *discovery.DiscoveryResponse,
		) {
			report(event{Event: "response", Stream: stream, Version: r.GetVersionInfo(), Nonce: r.GetNonce()})
		},
		StreamClosedFunc: func(stream int64, _ *core.Node) { report(event{Event: "closed", Stream: stream}) },
	}
	grpcServer := grpc.NewServer(options...)
	discovery.RegisterAggregatedDiscoveryServiceServer(
		grpcServer, server.NewServer(context.Background(), snapshots, callbacks),
	)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(grpcServer.Serve(listener)) }()
	report(event{Event: "listening"})

	reader := bufio.NewScanner(os.Stdin)
	reader.Buffer(nil, 256<<20)
	for reader.Scan() {
		var c command
		if err := json.Unmarshal(reader.Bytes(), &c); err != nil {
			log.Fatal(err)
		}
		if c.Forget {
			snapshots.ClearSnapshot(*node)
			continue
		}
		made, err := snapshot(c)
		if err == nil {
			err = snapshots.SetSnapshot(context.Background(), *node, made)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	grpcServer.Stop()
}
