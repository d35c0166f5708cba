// Package filter is the match language: the subset of Wireshark's
// display-filter language that a firewall can decide in bounded time.
//
// It holds the catalogue of fields (one table: name, type, where the bytes are
// and which engine can read it), the parser, the type checker, the printer and
// a reference evaluator. It knows frames, but nothing of rules, verdicts or
// engines.
package filter
