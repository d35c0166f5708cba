package filter

import (
	"strconv"
	"strings"
)

// escapes are Wireshark's one-letter escape sequences, which are C's.
var escapes = map[byte]byte{
	'a': '\a', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', 'v': '\v',
	'\'': '\'', '"': '"', '\\': '\\', '?': '?',
}

// lexString reads a quoted string: "…" with C's escapes, \x of one or two
// digits, octal of up to three, \uXXXX and \UXXXXXXXX; or r"…", in which a
// backslash stands for itself and only keeps a quote from ending the string.
func lexString(src string, off int) (token, error) {
	i := off
	raw := src[i] != '"'
	if raw {
		i++
	}
	var val strings.Builder
	for i++; i < len(src); {
		switch {
		case src[i] == '"':
			return token{kind: tokString, off: off, len: i + 1 - off, val: val.String()}, nil
		case src[i] != '\\':
			val.WriteByte(src[i])
			i++
		case raw:
			n := min(2, len(src)-i)
			val.WriteString(src[i : i+n])
			i += n
		default:
			s, n, msg := unescape(src[i:])
			if msg != "" {
				return token{}, errorAt(i, n, msg, `write \\ for a backslash, or r"…" for a string without escapes`)
			}
			val.WriteString(s)
			i += n
		}
	}
	return token{}, errorAt(off, 1, "the string is not closed", `write " at its end`)
}

// unescape reads the escape sequence at the start of s. It returns what it
// stands for, how many bytes it takes, and what is wrong with it.
func unescape(s string) (val string, n int, msg string) {
	if len(s) < 2 {
		return "", 1, "the string is not closed"
	}
	switch c := s[1]; {
	case c >= '0' && c <= '7':
		n = 1 + digits(s[1:], 3, "01234567")
		v, _ := strconv.ParseUint(s[1:n], 8, 16)
		if v > 0xff {
			return "", n, s[:n] + " is larger than 255"
		}
		return string([]byte{byte(v)}), n, ""
	case c == 'x':
		n = 2 + digits(s[2:], 2, hexDigits)
		v, err := strconv.ParseUint(s[2:n], 16, 8)
		if err != nil {
			return "", n, `\x without digits`
		}
		return string([]byte{byte(v)}), n, ""
	case c == 'u' || c == 'U':
		want := map[byte]int{'u': 4, 'U': 8}[c]
		n = 2 + digits(s[2:], want, hexDigits)
		v, _ := strconv.ParseUint(s[2:n], 16, 32)
		if n != 2+want || v > 0x10ffff || v >= 0xd800 && v < 0xe000 {
			return "", n, s[:n] + " is not a character"
		}
		return string(rune(v)), n, ""
	default:
		v, ok := escapes[c]
		if !ok {
			return "", 2, quote(s[:2]) + " is not an escape sequence"
		}
		return string([]byte{v}), 2, ""
	}
}

const hexDigits = "0123456789abcdefABCDEF"

// digits is how many of the first most bytes of s are in set.
func digits(s string, most int, set string) int {
	n := 0
	for n < len(s) && n < most && strings.IndexByte(set, s[n]) >= 0 {
		n++
	}
	return n
}
