package filter

// Eval is the reference evaluator: it walks the tree and looks at every
// occurrence. Engines are held against it. It does not allocate.
func Eval(e Expr, p *Packet, sets Sets) bool { panic("not written yet") }
