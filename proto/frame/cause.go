package frame

// Cause says why a frame is malformed. The zero value means that it is not.
type Cause uint8

// The causes.
const (
	CauseNone         Cause = iota
	CauseShortHeader        // shorter than its Ethernet header
	CauseShortTag           // ends inside a VLAN tag
	CauseTooManyTags        // more than MaxTags VLAN tags
	CauseBadLength          // 802.3 length beyond the frame, or 1501 to 1535; 0 before SNAP
	CauseShortLLC           // 802.3 length too short for its LLC or SNAP header
	CauseNestedLength       // an LLC header again, behind SNAP
	CauseShortIPv4          // shorter than an IPv4 header
	CauseIPVersion          // EtherType 0x0800, but the version is not 4; 0x86dd and not 6
	CauseIPv4HdrLen         // IHL below 5, or beyond the frame
	CauseIPv4TotalLen       // total length below the header's, or beyond the frame
	CauseShortIPv6          // shorter than an IPv6 header
	CauseIPv6Len            // payload length beyond the frame
	CauseIPv6Ext            // extension headers beyond the payload, or more than MaxExtensions
	CauseAuthHeader         // authentication header beyond the payload, or more than MaxExtensions
	CauseShortUDP           // shorter than a UDP header
	CauseUDPLen             // UDP length below 8, or beyond the IP payload
	CauseHalfSNAP           // LLC to SNAP's service access point, from another
)

// String gives the cause in words.
func (c Cause) String() string {
	return [...]string{"none", "short Ethernet header", "short VLAN tag", "too many VLAN tags",
		"802.3 length is impossible", "short LLC/SNAP header", "second LLC header behind SNAP",
		"short IPv4 header", "wrong IP version", "bad IPv4 header length", "bad IPv4 total length",
		"short IPv6 header", "bad IPv6 payload length", "bad IPv6 extension headers",
		"bad authentication header", "short UDP header", "bad UDP length", "LLC to SNAP from another access point"}[c]
}
