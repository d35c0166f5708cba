package filter

// Parse reads an expression. types tells the element types of the named sets in
// scope; a nil map knows none. The error is an *Error.
func Parse(src string, types SetTypes) (Expr, error) { panic("not written yet") }

// Error is a mistake in an expression, with its place.
type Error struct {
	// Offset and Len are the place in the source, in bytes.
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
