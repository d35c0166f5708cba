package filter

import (
	"strings"
)

// kind is the kind of a token.
type kind uint8

const (
	tokEnd    kind = iota
	tokWord        // a field's name or an unquoted constant
	tokString      // a quoted string; val is what it stands for
	tokSlice       // [...]; val is what stands between the brackets
	tokSet         // @name; val is the name
	tokCmp         // a comparison; op says which
	tokAnd
	tokOr
	tokNot
	tokIn
	tokMask // &
	tokLParen
	tokRParen
	tokLBrace
	tokRBrace
	tokComma
	tokDots    // ..
	tokRefused // part of Wireshark's language, but not of this one
)

// token is one token and its place in the source, in bytes.
type token struct {
	kind     kind
	op       Op
	off, len int
	val      string
}

// keywords are the operators that are spelt as words. As in Wireshark they are
// lower-case only.
var keywords = map[string]token{
	"and": {kind: tokAnd}, "or": {kind: tokOr}, "not": {kind: tokNot}, "in": {kind: tokIn},
	"bitwise_and": {kind: tokMask},
	"eq":          {kind: tokCmp, op: Eq}, "any_eq": {kind: tokCmp, op: Eq},
	"ne": {kind: tokCmp, op: Ne}, "all_ne": {kind: tokCmp, op: Ne},
	"lt": {kind: tokCmp, op: Lt}, "le": {kind: tokCmp, op: Le},
	"gt": {kind: tokCmp, op: Gt}, "ge": {kind: tokCmp, op: Ge},
}

// symbols are all other operators, a longer one before its own prefix.
var symbols = []struct {
	text string
	token
}{
	{"===", token{kind: tokRefused}}, {"!==", token{kind: tokRefused}}, {"~=", token{kind: tokRefused}},
	{"==", token{kind: tokCmp, op: Eq}}, {"!=", token{kind: tokCmp, op: Ne}},
	{"<=", token{kind: tokCmp, op: Le}}, {">=", token{kind: tokCmp, op: Ge}},
	{"<", token{kind: tokCmp, op: Lt}}, {">", token{kind: tokCmp, op: Gt}},
	{"&&", token{kind: tokAnd}}, {"||", token{kind: tokOr}}, {"!", token{kind: tokNot}},
	{"&", token{kind: tokMask}}, {"..", token{kind: tokDots}}, {",", token{kind: tokComma}},
	{"(", token{kind: tokLParen}}, {")", token{kind: tokRParen}},
	{"{", token{kind: tokLBrace}}, {"}", token{kind: tokRBrace}},
	{"^^", token{kind: tokRefused}}, {"~", token{kind: tokRefused}}, {"#", token{kind: tokRefused}},
	{"$", token{kind: tokRefused}}, {"'", token{kind: tokRefused}}, {"+", token{kind: tokRefused}},
	{"*", token{kind: tokRefused}}, {"%", token{kind: tokRefused}}, {"/", token{kind: tokRefused}},
}

// lex cuts src into tokens, the last of which is tokEnd.
func lex(src string) ([]token, error) {
	var toks []token
	for off := 0; ; {
		off += len(src[off:]) - len(strings.TrimLeft(src[off:], " \t\r\n"))
		if off == len(src) {
			return append(toks, token{kind: tokEnd, off: off}), nil
		}
		t, err := lexOne(src, off)
		if err != nil {
			return nil, err
		}
		toks = append(toks, t)
		off = t.off + t.len
	}
}

// lexOne reads the token that starts at off.
func lexOne(src string, off int) (token, error) {
	rest := src[off:]
	if q := strings.TrimLeft(rest[:min(2, len(rest))], "rR"); strings.HasPrefix(q, `"`) {
		return lexString(src, off)
	}
	switch {
	case rest[0] == '[':
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			return token{}, errorAt(off, 1, "the slice is not closed", "write ] after it")
		}
		return token{kind: tokSlice, off: off, len: end + 1, val: rest[1:end]}, nil
	case rest[0] == '@':
		n := wordLen(rest[1:])
		if n == 0 {
			return token{}, errorAt(off, 1, "@ without the name of a set", "write in @name")
		}
		return token{kind: tokSet, off: off, len: n + 1, val: rest[1 : n+1]}, nil
	}
	if n := wordLen(rest); n > 0 {
		return wordToken(off, rest[:n]), nil
	}
	for _, s := range symbols {
		if strings.HasPrefix(rest, s.text) {
			t := s.token
			t.off, t.len, t.val = off, len(s.text), s.text
			return t, nil
		}
	}
	return token{}, strayError(rest, off)
}

func wordToken(off int, word string) token {
	t := token{kind: tokWord}
	if k, ok := keywords[word]; ok {
		t = k
	} else if _, ok := refusals[word]; ok {
		t.kind = tokRefused
	}
	t.off, t.len, t.val = off, len(word), word
	return t
}

// wordLen is how many bytes of s belong to the word it starts with: names,
// numbers and addresses look alike until a field's type tells them apart. A
// minus sign may start a number; two dots end a word, for they make a range.
func wordLen(s string) int {
	i := 0
	for i < len(s) && (isWordByte(s[i]) || s[i] == '-' || s[i] == '/' && i > 0) && !strings.HasPrefix(s[i:], "..") {
		i++
	}
	if i == 1 && s[0] == '.' {
		return 0
	}
	return i
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == ':'
}

// strayError is for what starts no token at all.
func strayError(rest string, off int) error {
	hint := ""
	switch rest[0] {
	case '=':
		hint = "write == to compare"
	case '|':
		hint = "write || or or"
	}
	// A rune, so that the message does not cut one in half.
	for _, r := range rest {
		n := len(string(r))
		return errorAt(off, min(n, len(rest)), quote(rest[:min(n, len(rest))])+" is not part of the language", hint)
	}
	return nil
}
