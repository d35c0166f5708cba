package dhcp

// Options walks a message's options: those of the options field, then those of
// file and of sname where option 52 says so (RFC 2131, 4.1). It is a value and
// does not allocate.
type Options struct {
	// Code and Data are the current option, after Next returned true. Data
	// points into the message.
	Code uint8
	Data []byte
	// Malformed is CausePastEnd if a field had to be left before its End; the walk
	// goes on in the next one.
	Malformed Cause
	// Cut is the code of the last option that was left out because its code and
	// length are there, but not its data; 0 if there was none.
	Cut uint8
	// Blank is true if a Pad or an End was seen.
	Blank bool

	rest  []byte
	more  [2][]byte // file and sname, nil where they hold no options
	field int       // 0 options, 1 file, 2 sname
	done  bool
}

// Options starts a walk. A message without the cookie has none.
func (m *Message) Options() Options {
	if !m.HasCookie {
		return Options{done: true}
	}
	o := Options{rest: m.b[fixedLen+cookieLen:]}
	if m.Overload&1 != 0 {
		o.more[0] = m.b[108:fixedLen]
	}
	if m.Overload&2 != 0 {
		o.more[1] = m.b[44:108]
	}
	return o
}

// Next goes on to the next option, Pad and End left out.
func (o *Options) Next() bool {
	for !o.done {
		rest := o.rest
		for len(rest) > 0 && rest[0] == OptPad {
			rest, o.Blank = rest[1:], true
		}
		switch {
		case len(rest) > 0 && rest[0] == OptEnd:
			o.Blank = true
			o.nextField()
		case len(rest) < 2:
			o.Malformed = CausePastEnd
			o.nextField()
		case len(rest) < 2+int(rest[1]):
			o.Malformed, o.Cut = CausePastEnd, rest[0]
			o.nextField()
		default:
			n := 2 + int(rest[1])
			o.Code, o.Data, o.rest = rest[0], rest[2:n:n], rest[n:]
			return true
		}
	}
	return false
}

// nextField goes on to the next field that holds options, if any. What follows
// an End within its field is padding and is not read.
func (o *Options) nextField() {
	o.rest = nil
	for o.rest == nil && o.field < 2 {
		o.rest = o.more[o.field]
		o.field++
	}
	o.done = o.rest == nil
}

// Suboptions walks the sub-options of option 82 (RFC 3046, 2.0): no Pad, no End.
type Suboptions struct {
	Code      uint8
	Data      []byte
	Malformed Cause
	// Cut is true if the walk stopped at a sub-option whose code and length are
	// there, but not its data. Code is then its code.
	Cut  bool
	rest []byte
}

// NewSuboptions starts a walk over the data of option 82, joined if need be.
func NewSuboptions(data []byte) Suboptions { return Suboptions{rest: data} }

// Next goes on to the next sub-option. It stops with CausePastEnd at one that
// is longer than what is left.
func (s *Suboptions) Next() bool {
	if len(s.rest) == 0 {
		return false
	}
	if len(s.rest) < 2 || len(s.rest) < 2+int(s.rest[1]) {
		if s.Cut = len(s.rest) >= 2; s.Cut {
			s.Code = s.rest[0]
		}
		s.Malformed, s.rest = CausePastEnd, nil
		return false
	}
	n := 2 + int(s.rest[1])
	s.Code, s.Data, s.rest = s.rest[0], s.rest[2:n:n], s.rest[n:]
	return true
}
