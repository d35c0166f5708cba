.PHONY: test lint demo bench fence ci
test:
	go test ./...
lint:
	gofmt -l .
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
demo:
	go run ./cmd/postern demo
bench:
	go test ./firewall ./firewall/filter -run '^$$' -bench .
	go test ./afpacket -run '^$$' -bench Send -benchtime 1x
# A thousand failovers, and keepalived beside: about a quarter of an hour.
fence:
	POSTERN_FAILOVERS=1000 go test ./integration/fence -run "Failovers|Thousand|Keepalived" -count 1 -timeout 2h -v
ci:
	.ci/run
