package filter

// refusal says why a part of Wireshark's language is not part of this one, and
// what to write instead.
type refusal struct{ why, hint string }

var (
	unbounded  = refusal{"it searches the whole frame, which cannot be decided in bounded time in the kernel", "compare a field, or a slice such as frame[12:2]"}
	arithmetic = refusal{"there is no arithmetic", "compare with the value itself"}
	quantifier = refusal{"there are no quantifiers", "== and the orderings are true if any occurrence compares true, != if all differ"}
	function   = refusal{"there are no functions, for they cannot all be decided in bounded time in the kernel", "compare the field itself"}
	exclusive  = refusal{"there is no exclusive or", "write (a || b) && !(a && b)"}
	strict     = refusal{"there are no strict operators", "write == (true if any occurrence is equal) or != (true if all differ)"}
)

// refusals are the operators and words of Wireshark that are refused by name.
var refusals = map[string]refusal{
	"contains": unbounded, "matches": unbounded, "~": unbounded,
	"+": arithmetic, "-": arithmetic, "*": arithmetic, "/": arithmetic, "%": arithmetic,
	"any": quantifier, "all": quantifier,
	"xor": exclusive, "^^": exclusive,
	"===": strict, "!==": strict, "~=": strict, "all_eq": strict, "any_ne": strict,
	"#": {"only the outermost frame counts, so that there are no layers to choose from", "leave out the number of the layer"},
	"$": {"there are no references to fields of other frames", "write the value itself"},
	"'": {"there are no character constants", "write the number, or a string in double quotes"},
}

// refuse is the error for a token that is refused by name, with its reason.
func refuse(t token, r refusal) error {
	return errorAt(t.off, t.len, quote(t.val)+" is not supported: "+r.why, r.hint)
}
