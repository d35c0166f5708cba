package capture

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Error is what is wrong with a capture.
type Error struct {
	File string
	// Frame is the number of the frame that cannot be read, 0 before the first.
	// All frames before it were.
	Frame  int
	Msg    string
	Remedy string
	// Err is the cause, if there is one below.
	Err error
}

// Error names the file, the frame and the remedy.
func (e *Error) Error() string {
	s := e.File + ": "
	if e.Frame > 0 {
		s += fmt.Sprintf("frame %d: ", e.Frame)
	}
	s += e.Msg
	if e.Err != nil && e.Err != io.ErrUnexpectedEOF {
		s += ": " + cause(e.Err).Error()
	}
	if e.Remedy != "" {
		s += "; " + e.Remedy
	}
	return s
}

// cause leaves out the file name, which Error gives already.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

const (
	remedyFormat   = "save it as pcap or pcapng: editcap -F pcapng IN OUT"
	remedyCut      = "the frames before it are sound; capture again for the rest"
	remedyCorrupt  = "the frames before it are sound; the file is damaged from here on"
	remedyLinkType = "capture on an Ethernet interface, not on `any` or in monitor mode"
)

func (r *Reader) fail(msg, remedy string) error { return r.wrap(nil, msg, remedy) }

func (r *Reader) wrap(err error, msg, remedy string) error {
	if err == io.EOF {
		err = nil
	}
	return &Error{File: r.name, Frame: r.frame.Number, Msg: msg, Remedy: remedy, Err: err}
}

const linkEthernet = 1

// linkName gives a link type's name as tcpdump.org/linktypes.html has it.
func linkName(t uint16) string {
	name, ok := map[uint16]string{0: "NULL", 9: "PPP", 12: "RAW", 101: "RAW", 105: "IEEE802_11", 108: "LOOP", 113: "LINUX_SLL",
		127: "IEEE802_11_RADIOTAP", 147: "USER0", 187: "BLUETOOTH_HCI_H4", 192: "PPI", 195: "IEEE802_15_4_WITHFCS", 220: "USB_LINUX_MMAPPED",
		228: "IPV4", 229: "IPV6", 253: "NETLINK", 271: "VSOCK", 276: "LINUX_SLL2"}[t]
	if !ok {
		return fmt.Sprintf("link type %d", t)
	}
	return fmt.Sprintf("link type %d (%s)", t, name)
}
