//go:build linux

// Command postern is the egress firewall's one binary.
package main

import (
	"fmt"
	"os"
)

const usage = `usage: postern demo

  demo   two throw-away network namespaces: which frames leave through AF_PACKET,
         and what the parsers see in them
`

// Exit codes of the command line.
const (
	exitNo      = 1
	exitUsage   = 2
	exitMachine = 3
)

func main() {
	if len(os.Args) == 2 && (os.Args[1] == "--help" || os.Args[1] == "-h") {
		fmt.Print(usage)
		return
	}
	if len(os.Args) != 2 || os.Args[1] != "demo" {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(exitUsage)
	}
	os.Exit(demo(os.Stdout, os.Stderr))
}
