package firewall

// Rewrite carries out an ActionSet on b, in place, and corrects the checksums
// it breaks. It reports whether every field was there to be written; if not, b
// is unchanged.
func Rewrite(b []byte, set []Assignment) bool { panic("not written yet") }
