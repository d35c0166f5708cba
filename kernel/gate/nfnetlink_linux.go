package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// errStale: the ruleset changed since its generation was read (NFNL_BATCH_GENID).
var errStale = errors.New("the nftables ruleset changed in between")

// conn speaks nfnetlink's nf_tables, family netdev, in one network namespace.
type conn struct{ *netlink.Conn }

func dial(ns int) (conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns})
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return conn{}, fmt.Errorf("nfnetlink: %w (CONFIG_NETFILTER_NETLINK): %w", ErrNotSupported, err)
	}
	if err != nil {
		return conn{}, fmt.Errorf("nfnetlink: %w", err)
	}
	// Only for better words in errors.
	_ = c.SetOption(netlink.ExtendedAcknowledge, true)
	return conn{c}, nil
}

// encode writes attributes after a struct nfgenmsg. Integers are big-endian, as nfnetlink wants them.
func encode(family uint8, resource uint16, attrs func(*netlink.AttributeEncoder)) ([]byte, error) {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	if attrs != nil {
		attrs(ae)
	}
	b, err := ae.Encode()
	if err != nil {
		return nil, err
	}
	header := []byte{family, unix.NFNETLINK_V0, 0, 0}
	binary.BigEndian.PutUint16(header[2:], resource)
	return append(header, b...), nil
}

func nftType(msg int) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | msg)
}

// get asks for objects and hands the attributes of each to fn.
func (c conn) get(msg int, flags netlink.HeaderFlags, attrs func(*netlink.AttributeEncoder), fn func(*netlink.AttributeDecoder) error) error {
	data, err := encode(unix.NFPROTO_NETDEV, 0, attrs)
	if err != nil {
		return err
	}
	m := netlink.Message{Header: netlink.Header{Type: nftType(msg), Flags: netlink.Request | flags}, Data: data}
	replies, err := c.Execute(m)
	if err != nil {
		return err
	}
	for _, r := range replies {
		if len(r.Data) < 4 {
			return fmt.Errorf("reply of %d bytes, shorter than struct nfgenmsg", len(r.Data))
		}
		ad, err := netlink.NewAttributeDecoder(r.Data[4:])
		if err != nil {
			return err
		}
		ad.ByteOrder = binary.BigEndian
		if err := fn(ad); err != nil {
			return err
		}
		if err := ad.Err(); err != nil {
			return err
		}
	}
	return nil
}

// generation returns the number that each change of the namespace's ruleset moves on.
func (c conn) generation() (id uint32, err error) {
	err = c.get(unix.NFT_MSG_GETGEN, 0, nil, func(ad *netlink.AttributeDecoder) error {
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				id = ad.Uint32()
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, unix.EINVAL): // nfnetlink_rcv_msg: no such subsystem
		return 0, fmt.Errorf("nf_tables (CONFIG_NF_TABLES): %w: %w", ErrNotSupported, err)
	case err != nil:
		return 0, fmt.Errorf("the nftables ruleset's generation: %w", err)
	}
	return id, nil
}

// batch is a transaction: all of it is done, or nothing.
type batch struct {
	msgs    []netlink.Message
	purpose []purpose // of each message, for errors
	err     error
}

// purpose is what a message wants, and what kernels that answer one of errnos lack.
type purpose struct {
	what   string
	lack   string
	errnos []error
}

func (b *batch) add(p purpose, msg int, flags netlink.HeaderFlags, attrs func(*netlink.AttributeEncoder)) {
	data, err := encode(unix.NFPROTO_NETDEV, 0, attrs)
	b.err = errors.Join(b.err, err)
	b.msgs = append(b.msgs, netlink.Message{
		Header: netlink.Header{Type: nftType(msg), Flags: netlink.Request | flags},
		Data:   data,
	})
	b.purpose = append(b.purpose, p)
}

// commit sends the transaction, to be done if the ruleset's generation is still that,
// and fails with errStale if not.
func (c conn) commit(b *batch, generation uint32) error {
	if b.err != nil || len(b.msgs) > 0 {
		return c.transact(b, generation, true)
	}
	now, err := c.generation()
	if err == nil && now != generation {
		err = errStale
	}
	return err
}

// try has the kernel check the transaction and do nothing: without its end the batch is aborted.
func (c conn) try(b *batch, generation uint32) error {
	return c.transact(b, generation, false)
}

func (c conn) transact(b *batch, generation uint32, end bool) error {
	if b.err != nil {
		return b.err
	}
	begin, err := encode(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, func(ae *netlink.AttributeEncoder) {
		ae.Uint32(unix.NFNL_BATCH_GENID, generation)
	})
	if err != nil {
		return err
	}
	last := len(b.msgs) // the position of the last message behind the beginning
	msgs := append([]netlink.Message{{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_BEGIN, Flags: netlink.Request}, Data: begin}}, b.msgs...)
	// Errors are reported in the order of their messages, whether asked for or not; so one
	// acknowledgement, the last message's, says that there are no more.
	msgs[last].Header.Flags |= netlink.Acknowledge
	if end {
		data, err := encode(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
		if err != nil {
			return err
		}
		msgs = append(msgs, netlink.Message{Header: netlink.Header{Type: unix.NFNL_MSG_BATCH_END, Flags: netlink.Request}, Data: data})
	}
	if err := c.reserve(msgs); err != nil {
		return err
	}
	if msgs, err = c.SendMessages(msgs); err != nil {
		return b.explain(nil, err)
	}
	for {
		replies, err := c.Receive()
		if err != nil {
			return b.explain(msgs, err)
		}
		for _, r := range replies {
			if r.Header.Sequence == msgs[last].Header.Sequence {
				return nil
			}
		}
	}
}

// reserve makes room for a transaction, which must fit into one datagram.
func (c conn) reserve(msgs []netlink.Message) error {
	const enough = 200 << 10 // the kernel's default holds that much
	size := 0
	for _, m := range msgs {
		size += unix.NLMSG_HDRLEN + len(m.Data)
	}
	if size < enough {
		return nil
	}
	if err := c.SetWriteBuffer(2 * size); err != nil {
		return fmt.Errorf("room for a transaction of %d bytes: %w", size, err)
	}
	return nil
}

// explain says which message of the transaction was refused.
func (b *batch) explain(msgs []netlink.Message, err error) error {
	var op *netlink.OpError
	if !errors.As(err, &op) {
		return err
	}
	reason := op.Err
	if op.Message != "" {
		reason = fmt.Errorf("%w (%s)", reason, op.Message)
	}
	i := slices.IndexFunc(msgs, func(m netlink.Message) bool { return m.Header.Sequence == op.Sequence && op.Sequence != 0 })
	switch {
	case i == 0 && errors.Is(reason, unix.ERESTART): // nfnetlink_rcv_batch: another generation
		return errStale
	case i < 1 || i > len(b.purpose):
		return fmt.Errorf("nftables transaction: %w", reason)
	}
	p := b.purpose[i-1]
	if slices.ContainsFunc(p.errnos, func(errno error) bool { return errors.Is(reason, errno) }) {
		return fmt.Errorf("%s: %s %w: %w", p.what, p.lack, ErrNotSupported, reason)
	}
	return fmt.Errorf("%s: %w", p.what, reason)
}
