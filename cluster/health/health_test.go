package health

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestThresholds(t *testing.T) {
	for _, c := range []struct {
		results, want string // of results: + and -; what is told: h, u, or . for nothing
		fall, rise    int
	}{
		{"+", "h", 3, 2},
		{"-", "u", 3, 2},
		{"+--+---++", "h.....u.h", 3, 2},
		{"-+-++", "u...h", 3, 2},
		{"+-+-", "huhu", 1, 1},
	} {
		state, got := thresholds{fall: c.fall, rise: c.rise}, ""
		for _, r := range c.results {
			switch {
			case !state.next(r == '+'):
				got += "."
			case state.healthy:
				got += "h"
			default:
				got += "u"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.results, got, c.want)
		}
	}
}

func TestChecks(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/slow":
			<-r.Context().Done()
		case "/bad":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/moved":
			http.Redirect(w, r, "/bad", http.StatusFound)
		}
	}))
	defer server.Close()
	at := strings.TrimPrefix(server.URL, "http://")
	for _, c := range []struct {
		name string
		Check
		want string // in the error; "" is none
	}{
		{"program", Check{Exec: []string{"true"}}, ""},
		{"program that fails", Check{Exec: []string{"sh", "-c", "echo not today; exit 3"}}, "exit status 3 not today"},
		{"no such program", Check{Exec: []string{"/nonexistent"}}, "no such file"},
		{"program that hangs", Check{Exec: []string{"sh", "-c", "sleep 600 & wait"}}, "signal: killed"},
		{"connection", Check{TCP: at}, ""},
		{"nobody listens", Check{TCP: "127.0.0.1:1"}, "refused"},
		{"page", Check{HTTP: server.URL}, ""},
		{"another page", Check{HTTP: server.URL + "/moved"}, ""},
		{"bad page", Check{HTTP: server.URL + "/bad"}, "503"},
		{"page that hangs", Check{HTTP: server.URL + "/slow"}, "deadline"},
		{"no URL", Check{HTTP: "::"}, "missing protocol scheme"},
	} {
		c.Timeout = 5 * time.Second
		if strings.Contains(c.name, "hangs") {
			c.Timeout = 100 * time.Millisecond
		}
		err := c.once(t.Context())
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
