// Command etcd is the etcd server, for tests and the demonstration: they build it on
// demand, so that it is no dependency of postern's.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
