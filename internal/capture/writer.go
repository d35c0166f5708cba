package capture

import (
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Writer writes a pcapng of Ethernet frames, each with a comment.
type Writer struct {
	w      *pcapgo.NgWriter
	ifaces map[string]int
}

// NewWriter starts a capture on w.
func NewWriter(w io.Writer) (*Writer, error) {
	ng, err := pcapgo.NewNgWriterInterface(w, description(""), pcapgo.NgWriterOptions{
		SectionInfo: pcapgo.NgSectionInfo{Application: "postern"},
	})
	if err != nil {
		return nil, err
	}
	return &Writer{ng, map[string]int{"": 0}}, nil
}

func description(name string) pcapgo.NgInterface {
	return pcapgo.NgInterface{Name: name, LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}
}

// Write adds a frame, of which it keeps nothing.
func (w *Writer) Write(f *Frame, comment string) error {
	id, ok := w.ifaces[f.Iface]
	if !ok {
		var err error
		if id, err = w.w.AddInterface(description(f.Iface)); err != nil {
			return err
		}
		w.ifaces[f.Iface] = id
	}
	return w.w.WritePacketWithOptions(gopacket.CaptureInfo{
		Timestamp: time.Unix(0, f.Time), CaptureLength: len(f.Data), Length: f.WireLen, InterfaceIndex: id,
	}, f.Data, pcapgo.NgPacketOptions{Comments: []string{comment}})
}

// Flush writes what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }
