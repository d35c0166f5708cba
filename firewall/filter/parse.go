package filter

import (
	"fmt"
	"strconv"
	"strings"
)

// The limits of an expression. The one on its length bounds the number of its
// nodes as well.
const (
	MaxLength = 64 << 10 // bytes
	MaxDepth  = 1000     // parentheses and negations inside each other
)

// Parse reads an expression. types tells the element types of the named sets in
// scope; a nil map knows none. The error is an *Error.
func Parse(src string, types SetTypes) (Expr, error) {
	if len(src) > MaxLength {
		return nil, errorAt(0, 1, fmt.Sprintf("the expression is %d bytes long, the limit is %d", len(src), MaxLength),
			"put long lists into a named set")
	}
	toks, err := lex(src)
	if err != nil {
		return nil, err
	}
	p := &parser{src: src, toks: toks, types: types}
	if p.tok().kind == tokEnd {
		return nil, errorAt(0, 1, "the expression is empty", "leave out `match` to match every frame")
	}
	x, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.tok().kind != tokEnd {
		return nil, p.unexpected()
	}
	return x, nil
}

// Error is a mistake in an expression, with its place.
type Error struct {
	// Offset and Len are the place in the source, in bytes. Len is at least 1,
	// also where the place is the end of the source.
	Offset, Len int
	Msg         string
	// Hint is the remedy, or "".
	Hint string
}

// Error gives message and hint in one line.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Msg
	}
	return e.Msg + "; " + e.Hint
}

func errorAt(off, n int, msg, hint string) error {
	return &Error{Offset: off, Len: max(n, 1), Msg: msg, Hint: hint}
}

// quote shows a piece of source in a message, cut if it is long.
func quote(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return strconv.Quote(s)
}

// parser is a recursive-descent parser over the tokens of src.
type parser struct {
	src   string
	toks  []token
	pos   int
	depth int
	types SetTypes
}

func (p *parser) tok() token  { return p.toks[p.pos] }
func (p *parser) peek() token { return p.toks[min(p.pos+1, len(p.toks)-1)] }

// next takes the current token. The last one, tokEnd, stays.
func (p *parser) next() token {
	t := p.toks[p.pos]
	p.pos = min(p.pos+1, len(p.toks)-1)
	return t
}

// accept takes the current token if it is of kind k.
func (p *parser) accept(k kind) bool {
	if p.tok().kind != k {
		return false
	}
	p.next()
	return true
}

// expect takes a token of kind k, or says that what was wanted.
func (p *parser) expect(k kind, what string) error {
	if p.accept(k) {
		return nil
	}
	t := p.tok()
	if t.kind == tokRefused {
		return refuse(t, refusals[t.val])
	}
	return errorAt(t.off, t.len, "expected "+what+", found "+p.show(t), "")
}

// text is the source of t.
func (p *parser) text(t token) string { return p.src[t.off : t.off+t.len] }

// show is t for a message.
func (p *parser) show(t token) string {
	if t.kind == tokEnd {
		return "the end of the expression"
	}
	return quote(p.text(t))
}

// or is and { "||" and }. Chains make one node, whatever their parentheses.
func (p *parser) or() (Expr, error) {
	x, err := p.and()
	if err != nil || p.tok().kind != tokOr {
		return x, err
	}
	node := &Or{}
	for {
		if inner, ok := x.(*Or); ok {
			node.X = append(node.X, inner.X...)
		} else {
			node.X = append(node.X, x)
		}
		if !p.accept(tokOr) {
			return node, nil
		}
		if x, err = p.and(); err != nil {
			return nil, err
		}
	}
}

// and is unary { "&&" unary }.
func (p *parser) and() (Expr, error) {
	x, err := p.unary()
	if err != nil || p.tok().kind != tokAnd {
		return x, err
	}
	node := &And{}
	for {
		if inner, ok := x.(*And); ok {
			node.X = append(node.X, inner.X...)
		} else {
			node.X = append(node.X, x)
		}
		if !p.accept(tokAnd) {
			return node, nil
		}
		if x, err = p.unary(); err != nil {
			return nil, err
		}
	}
}

// unary is { "!" } and a group or a test. All recursion passes here.
func (p *parser) unary() (Expr, error) {
	t := p.tok()
	if p.depth > MaxDepth {
		return nil, errorAt(t.off, t.len, fmt.Sprintf("the expression is more than %d deep", MaxDepth), "split the rule")
	}
	p.depth++
	defer func() { p.depth-- }()
	switch t.kind {
	case tokNot:
		p.next()
		x, err := p.unary()
		if err != nil {
			return nil, err
		}
		return &Not{x}, nil
	case tokLParen:
		if p.startsTuple() {
			return p.tuple()
		}
		return p.group()
	}
	ref, err := p.ref()
	if err != nil {
		return nil, err
	}
	return p.relation(ref, t.off)
}

// group is "(" or ")". As in later versions of Wireshark it may also hold the
// left side of a comparison: (field & mask) == value.
func (p *parser) group() (Expr, error) {
	open := p.next()
	x, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.tok().kind == tokEnd {
		return nil, errorAt(open.off, 1, "the parenthesis is not closed", "write ) after it")
	}
	if err := p.expect(tokRParen, `")", "&&" or "||"`); err != nil {
		return nil, err
	}
	switch k := p.tok().kind; {
	case k == tokCmp, k == tokIn, k == tokMask, k == tokNot && p.peek().kind == tokIn:
	default:
		return x, nil
	}
	switch x := x.(type) {
	case *Present:
		return p.relation(x.Field, open.off)
	case *Test:
		return p.relation(x.Field, open.off)
	}
	return nil, p.unexpected()
}

// unexpected is the error for a token that cannot stand where it does.
func (p *parser) unexpected() error {
	t := p.tok()
	hint, word := "", strings.ToLower(t.val)
	switch {
	case t.kind == tokRefused:
		return refuse(t, refusals[t.val])
	case t.kind == tokEnd:
		return errorAt(t.off, 1, "the expression ends too early", "")
	case t.kind == tokWord && keywords[word] != (token{}):
		hint = "operators are lower-case: " + word
	case t.kind == tokWord && refusals[word] != (refusal{}):
		return refuse(t, refusals[word])
	case t.kind == tokWord && word[0] == '-':
		return refuse(t, arithmetic)
	case t.kind == tokLBrace:
		hint = "braces hold the elements after in; group with ( )"
	case t.kind == tokWord || t.kind == tokLParen:
		hint = "join tests with && or ||"
	}
	return errorAt(t.off, t.len, p.show(t)+" is unexpected here", hint)
}
