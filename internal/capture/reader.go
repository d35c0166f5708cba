// Package capture reads and writes captures: pcap and pcapng, plain or gzipped.
//
// The reader believes no length that a file claims. A record is looked at only
// where all of it lies within one buffer of fixed size, so that memory stays
// constant whatever the capture's size, and a damaged file gives an error with
// its place, never a panic or a frame that is not there.
package capture

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
)

// MaxFrame is the longest frame that is read, in bytes: libpcap's own limit.
const MaxFrame = 256 << 10

// maxBlock bounds a pcap record and a pcapng block that is looked into: a frame
// and its options.
const maxBlock = 2 * MaxFrame

// Stdin is the name that stands for standard input.
const Stdin = "-"

// Frame is one frame of a capture.
type Frame struct {
	// Number counts the file's frames from 1 as Wireshark does: those of other
	// link types too, and pcapng's custom blocks.
	Number int
	// Time is nanoseconds since 1970, at least 1; where the file has no time
	// stamp it is the frame's before.
	Time int64
	// WireLen is the frame's length when it was sent, at least len(Data).
	WireLen int
	// Iface names the interface, where a pcapng says it.
	Iface string
	// Data belongs to the Reader, until the next call of Next.
	Data []byte
}

// Reader reads the Ethernet frames of a capture.
type Reader struct {
	name    string
	in      *bufio.Reader
	close   func() error
	raw     *counter
	size    int64
	format  format
	discard int // bytes of in that the last frame still holds
	frame   Frame
	skipped Skipped
	some    bool // a frame was delivered
	err     error
}

// format reads one frame's record. It peeks at r.in and sets r.discard. It
// returns io.EOF at the end of the file, and errSkip for a frame of another link
// type.
type format interface {
	next(r *Reader) error
}

var errSkip = errors.New("skipped")

// Skipped tells of frames that are not Ethernet.
type Skipped struct {
	Frames int
	// First is the number of the first of them, and LinkType says what it is.
	First    int
	LinkType string
}

// Open opens the capture of that name; Stdin stands for in. Its errors are
// *Error, or those of the operating system.
func Open(name string, in io.Reader) (*Reader, error) {
	if name == Stdin {
		return NewReader("standard input", in)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	r, err := NewReader(name, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	r.close = f.Close
	if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
		r.size = st.Size()
	}
	return r, nil
}

// NewReader reads a capture from in; name appears in errors.
func NewReader(name string, in io.Reader) (*Reader, error) {
	r := &Reader{name: name, raw: &counter{r: in}, close: func() error { return nil }}
	r.in = bufio.NewReaderSize(r.raw, maxBlock)
	if magic, _ := r.in.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(r.in)
		if err != nil {
			return nil, r.wrap(err, "the gzip header is damaged", "unpack it with gunzip to see how much is left")
		}
		r.in = bufio.NewReaderSize(z, maxBlock)
	}
	magic, err := r.in.Peek(4)
	switch {
	case err != nil && err != io.EOF && err != io.ErrUnexpectedEOF:
		return nil, r.wrap(err, "cannot be read", "")
	case len(magic) == 0 && err == io.EOF:
		return nil, r.fail("the file is empty", "a capture begins with a header, even one without frames")
	case len(magic) < 4:
		return nil, r.wrap(err, "too short to be a capture", remedyFormat)
	case binary.LittleEndian.Uint32(magic) == blockSection:
		r.format = &pcapng{}
		return r, nil
	}
	r.format, err = newPcap(r, magic)
	return r, err
}

// Next returns the next Ethernet frame. It is the Reader's own and valid until
// the next call. At the end of the capture the error is io.EOF; all others are
// *Error, and final.
func (r *Reader) Next() (*Frame, error) {
	for r.err == nil {
		// Cannot fail: it was peeked at.
		_, _ = r.in.Discard(r.discard)
		r.discard = 0
		switch err := r.format.next(r); err {
		case nil:
			return &r.frame, nil
		case errSkip:
		default:
			r.err = err
		}
	}
	if r.err == io.EOF && r.skipped.Frames > 0 && !r.some {
		r.err = r.fail("no frame of it is Ethernet, but "+r.skipped.LinkType, remedyLinkType)
	}
	return nil, r.err
}

// Skipped tells of the frames left out so far.
func (r *Reader) Skipped() Skipped { return r.skipped }

// Progress tells how many bytes of the file were read, and its size; 0 where
// it is not known.
func (r *Reader) Progress() (read, size int64) { return r.raw.n, r.size }

// Close closes the file that Open opened.
func (r *Reader) Close() error { return r.close() }

// peek returns the next n bytes of the file, at most maxBlock. Where there are
// fewer the error says that the frame is cut short; where there are none, and
// none is needed, it is io.EOF.
func (r *Reader) peek(n int, what string, atStart bool) ([]byte, error) {
	b, err := r.in.Peek(n)
	switch {
	case err == nil:
		return b, nil
	case err == io.EOF && len(b) == 0 && atStart:
		return nil, io.EOF
	case err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF):
		return nil, r.wrap(io.ErrUnexpectedEOF, fmt.Sprintf("cut short: %s has %d of %d bytes", what, len(b), n), remedyCut)
	}
	return nil, r.wrap(err, "cannot be read", "")
}

// begin numbers a frame and gives it its data; the time is set by then.
func (r *Reader) begin(data []byte, wireLen uint32, time int64, iface string) {
	r.some = true
	r.frame.Data, r.frame.WireLen, r.frame.Iface = data, max(len(data), int(wireLen)), iface
	if time != noTime {
		r.frame.Time = time
	}
	r.frame.Time = max(1, r.frame.Time)
}

// noTime marks a record without a time stamp.
const noTime = -1 << 63

func (r *Reader) skip(linkType uint16, iface string) error {
	if r.skipped.Frames == 0 {
		r.skipped.First, r.skipped.LinkType = r.frame.Number, linkName(linkType)
		if iface != "" {
			if !strconv.CanBackquote(iface) {
				iface = strconv.Quote(iface) // a file's words must not steer a terminal
			}
			r.skipped.LinkType += " on " + iface
		}
	}
	r.skipped.Frames++
	return errSkip
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}
