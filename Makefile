.PHONY: test lint demo bench bench-quick fence ci
test:
	go test ./...
lint:
	gofmt -l .
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
demo:
	go run ./cmd/postern demo
bench:
	go run ./integration/bench -o docs $(BENCH)
	go run -C integration/bench/plot . $(CURDIR)/docs/performance
bench-quick:
	$(MAKE) bench BENCH=-quick
# A thousand failovers within the promised times, and each of keepalived's faults ten times: 12 minutes on a machine that does little
# else. Sixty failovers are part of test.
fence:
	POSTERN_FAILOVERS=1000 go test ./integration/fence -count 1 -timeout 2h -v
ci:
	.ci/run
