//go:build tools

// Package tools names the programs that check deploy/ and call the server as people do, so that go.mod holds their
// versions and go.sum their hashes. They need a newer Go than those of the folder above.
package tools

import (
	_ "github.com/fullstorydev/grpcurl/cmd/grpcurl"
	_ "helm.sh/helm/v3/cmd/helm"
)
