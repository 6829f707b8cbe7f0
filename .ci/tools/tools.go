//go:build tools

// Package tools names the programs that CI installs, so that go.mod holds their versions and go.sum their hashes.
package tools

import (
	_ "github.com/bojand/ghz/cmd/ghz"
	_ "github.com/summerwind/h2spec/cmd/h2spec"
)
