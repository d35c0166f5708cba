package bpf

import (
	"github.com/postern-fw/postern/firewall/filter"
)

// The scratch area: one value of a per-CPU array, where a frame's bytes and what
// was found in them stay while it is judged. Offsets and lengths in bytes. A
// value that several of the kernel's helpers would have to be asked for is here
// at a constant offset, so that reading a field is one load.
//
// Frames are judged with bottom halves off, so that none interrupts another on
// its CPU; only a frame sent by a `duplicate` is judged amid another, and by
// then that one needs its area no more.
const (
	// The frame's first bytes, as far as they go, a tag in skb->vlan_tci put
	// back in its place. From sNet on they are the network layer's, wherever
	// that began.
	sHead = 0
	sNet  = sHead + 14
	// headLen is what is loaded at once; netLen what there is of the network layer.
	headLen = 64
	netLen  = headLen - 14

	sUDP  = 80          // the UDP header
	sDHCP = sUDP + 8    // the DHCP message's fixed part and cookie
	sPTP  = sDHCP       // the first 8 bytes of PTP or IEEE 1722
	sData = 336         // an option's data, zero behind it
	sSub  = sData + 264 // a sub-option's data
	sTmp  = sSub + 264  // bytes to compare
	sLeft = sTmp + 288  // the left side of a comparison of two fields
	sKey  = sLeft + 264 // key of a look-up

	sLook = sKey + 520 // the key as it is looked up

	sTags     = sLook + 528    // each tag's TCI and the type behind it, on the wire's order
	sTagType  = sTags + 4*8    // uint32 each: that type, 0 where the tag is cut
	sTagAt    = sTagType + 4*8 // uint32 each: where the tag's TCI stands in the frame
	sTagLen   = sTagAt + 4*8   // uint32 each: 4, or fewer where the tag is cut
	sLLC      = sTagLen + 4*8  // LLC and SNAP header, 16 bytes
	sFirst    = sLLC + 16      // the frame's first 16 bytes, where a tag was put back
	sComm     = sFirst + 16    // the sender's command name, 16 bytes, and 8 zeros
	sIface    = sComm + 24     // name of the interface, likewise
	sIfaceMAC = sIface + 24    // its address, 8 bytes, the first two 0

	// What is cleared for each frame: sClear to sClearEnd. Of the layers' lengths, a frame always
	// has the first.
	sLayerLen = sIfaceMAC + 8        // uint32 for each filter.Layer
	sHas      = sLayerLen + 4*layers // uint32: a bit for each layer that is there
	sBad      = sHas + 4             // uint32: a bit for each layer that is malformed
	sCause    = sBad + 4             // uint32: the first cause
	sFlags    = sCause + 4           // uint32: flag…
	sNTags    = sFlags + 4           // uint32
	sVerdict  = sNTags + 4           // uint32
	sReason   = sVerdict + 4         // uint32
	sRule     = sReason + 4          // uint32: deciding rule, or the number of rules
	sNEffects = sRule + 4            // uint32
	sClear    = sLayerLen + 8        // from LayerEth on
	sClearEnd = sNEffects + 4

	sMark  = sClearEnd            // uint32
	sFrom  = sMark + 4            // uint32: rules below are done with
	sBest  = sFrom + 4            // uint32
	sAtoms = (sBest + 4 + 7) &^ 7 // bits: tests that an occurrence in an option has stood, cleared for each DHCP message

	sLayerAt = sAtoms + atomBytes  // uint32 for each filter.Layer: where it begins in the frame
	sLen     = sLayerAt + 4*layers // uint32: the frame's length
	sStable  = sLen + 4            // uint32: how many of the skb's bytes are the kernel's own
	sMoving  = sStable + 4         // uint32: 1 if more could not be made so
	sFetchAt = sMoving + 4         // uint32 each: place and number of bytes that are read
	sFetchN  = sFetchAt + 4
	sShift   = sFetchN + 4 // uint32: 4 where a tag was put back
	sNetAt   = sShift + 4  // uint32: where the network layer begins
	sNetLen  = sNetAt + 4  // uint32
	sEther   = sNetLen + 4 // uint32: EtherType
	sOUI     = sEther + 4  // uint32
	sSNAP    = sOUI + 4    // uint32
	sEffects = sSNAP + 4   // uint32 each: rules to be carried out, 8

	// The walk over DHCP options.
	sWalkField = sEffects + 4*8 // uint32: 0 options, 1 file, 2 sname
	sWalkAt    = sWalkField + 4 // uint32: place in the frame
	sWalkEnd   = sWalkAt + 4    // uint32
	sOverload  = sWalkEnd + 4   // uint32
	sType      = sOverload + 4  // uint32: option 53, + 0x100 once seen
	sNote      = sType + 4      // uint32: first cause noted on the way
	sWalkFlags = sNote + 4      // uint32: walk…
	sCut       = sWalkFlags + 4 // uint32
	sCode      = sCut + 4       // uint32: the current option
	sDataAt    = sCode + 4      // uint32
	sDataLen   = sDataAt + 4    // uint32

	// Operands under comparison.
	sAt      = sDataLen + 4         // uint32: place of bytes in the frame
	sSize    = sAt + 4              // uint32: their number
	sNum     = (sSize + 4 + 7) &^ 7 // 8 bytes: a number
	sNum2    = sNum + 8
	sSubAt   = sNum2 + 8
	sSubLen  = sSubAt + 4
	sSubNext = sSubLen + 4  // uint32: where in sData the next sub-option begins
	sLoaded  = sSubNext + 4 // uint32: sDataAt of what is at sData
	sOnce    = sLoaded + 4  // uint32 each: place and length of options 50, 54, 61 and 82
	sText    = sOnce + 4*8  // uint32: length of a text that is not in the frame
	sFound   = sText + 4    // uint32
	sIndex   = sFound + 4   // uint32: key of an array
	sNext    = sIndex + 4   // uint32: the next candidate
	sSlot    = sNext + 4    // uint32: the deciding rule's counter
	sCur     = sSlot + 4    // uint32: the guarded device's index

	// A limit's token bucket.
	sHash     = (sCur + 4 + 7) &^ 7 // 8 bytes: the key
	sNow      = sHash + 8           // 8 bytes
	sSlotBase = sNow + 8            // uint32: first slot, then their number less 1, then the one found and a free one, each plus 1
	sSlotMask = sSlotBase + 4
	sSlotMine = sSlotMask + 4
	sSlotFree = sSlotMine + 4
	sTextHash = (sSlotFree + 4 + 7) &^ 7 // 8 bytes: the hash of a text
	sCaptures = sTextHash + 8            // 8 bytes each: the first occurrence of a field in options, or its hash

	maxCaptures = 32 // more than there are such fields

	sCgroupID  = sCaptures + 8*maxCaptures // 8 bytes: number of the sender's cgroup
	sCgroupLen = sCgroupID + 8             // 8 bytes: length of its path
	sCgroup    = sCgroupLen + 8            // the path, zeros behind it

	// The key of a shape: its candidates may look up other keys between two of its own.
	sShapeKey    = sCgroup + cgroupRoom
	shapeKeyRoom = 2*textPart + 64

	sValue   = sShapeKey + shapeKeyRoom // 8 bytes: the number that is put to tests
	sTextLen = sValue + 8               // uint32: length of the text or bytes in an option

	sUID = sTextLen + 4 // uint32: the sender's
	sPID = sUID + 4     // uint32

	sLeftLen = sPID + 4 // uint32: length of what is at sLeft

	// A joint test on several fields in options.
	sLevel      = sLeftLen + 4    // uint32: the field that is looked for
	sJointEnded = sLevel + 4      // uint32: 1 when every combination was tried
	sWithin     = sJointEnded + 4 // uint32: 1 if the walk stands on an option of the field
	sStep       = sWithin + 4     // uint32: number of its next occurrence in that option
	sOuter      = sStep + 4       // for each field: the walk and these two, while inner ones are looked for
	scratchSize = (sOuter+4*outerWords*(maxJoint-1)+7)&^7 + 8

	layers    = 12 // filter.LayerIEEE1722 is the last
	atomBytes = 512
)

const _ = -uint(layers - 1 - filter.LayerIEEE1722) // does not compile unless it is 0

// Bits of sFlags.
const (
	flagSNAP    = 1 << iota
	flagHasHW   // ARP's hardware addresses
	flagHasIPv4 // ARP's protocol addresses
	flagGratuitous
	flagAnnouncement
	flagProbe
	flagUDP    // Packet.HasUDP
	flagDHCP   // Packet.HasDHCP
	flagCookie // dhcp.Message.HasCookie
	flagMarked
	flagSender // the sender is known
	flagIface  // the interface's name is known
	flagAudited
	flagIngress
	flagTooMany // a joint test was given up
)

// Bits of sWalkFlags.
const (
	walkPastEnd = 1 << iota
	walkBlank
	walkTypeSeen // option 53, sound or not
)

func layerLen(l filter.Layer) int { return sLayerLen + 4*int(l) }
func layerAt(l filter.Layer) int  { return sLayerAt + 4*int(l) }

// area is where a layer's bytes stand in the scratch area, for fields with a
// fixed place; -1 where they do not.
func area(l filter.Layer) int {
	switch l {
	case filter.LayerEth:
		return sHead
	case filter.LayerLLC:
		return sLLC
	case filter.LayerARP, filter.LayerIPv4, filter.LayerIPv6:
		return sNet
	case filter.LayerUDP:
		return sUDP
	case filter.LayerDHCP:
		return sDHCP
	case filter.LayerPTP, filter.LayerIEEE1722:
		return sPTP
	}
	return -1
}
