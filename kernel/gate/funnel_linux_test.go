package gate

import "testing"

func TestEverySenderIsFunnelled(t *testing.T) {
	p, g := near(t)
	i := inspect(t, p, g)
	far := receive(t, p, p.Ifi[1].Index)
	const n = 5
	send := func(t *testing.T, s sender) {
		t.Helper()
		must(t, p.Do(0, func() error { return s.send(p.Ifi[0].Index, n) }))
	}
	for _, s := range senders() {
		t.Run("no gate/"+s.name, func(t *testing.T) {
			send(t, s)
			if got, seen := far.count(n), i.seen(p.Ifi[0].Index); got != n || seen != 0 {
				t.Errorf("%d of %d arrived, %d were inspected: the sender itself does not work", got, n, seen)
			}
		})
	}
	install(t, g, Device{Name: "near"})
	for _, letGo := range []bool{false, true} {
		i.letGo(letGo)
		for _, s := range senders() {
			t.Run(map[bool]string{false: "refused/", true: "let go/"}[letGo]+s.name, func(t *testing.T) {
				send(t, s)
				want := map[bool]int{false: 0, true: n}[letGo]
				if got, seen := far.count(want), i.seen(p.Ifi[0].Index); got != want || seen != n {
					t.Errorf("%d of %d arrived, want %d; %d were inspected", got, n, want, seen)
				}
			})
		}
	}
}
