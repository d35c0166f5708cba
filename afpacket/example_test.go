package afpacket_test

import (
	"errors"
	"fmt"
	"log"
	"net"
	"os"

	"github.com/postern-fw/postern/afpacket"
	"github.com/postern-fw/postern/firewall"
)

// A program that sends ARP (0x0806), and nothing that its policy does not allow.
func Example() {
	src, err := os.ReadFile("policy.yaml")
	if err != nil {
		log.Fatal(err)
	}
	policy, _, err := firewall.Parse("policy.yaml", src)
	if err != nil {
		log.Fatal(err)
	}
	fw, err := firewall.New(policy)
	if err != nil {
		log.Fatal(err)
	}
	ifi, err := net.InterfaceByName("eth0")
	if err != nil {
		log.Fatal(err)
	}
	c, err := afpacket.Listen(ifi, afpacket.Raw, 0x0806, &afpacket.Config{Firewall: fw})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	var frame []byte // an Ethernet frame
	_, err = c.WriteTo(frame, &afpacket.Addr{HardwareAddr: frame[:6]})
	var blocked *afpacket.BlockedError
	if errors.As(err, &blocked) {
		fmt.Println("refused by", blocked.Rule)
	}
}
