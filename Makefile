.PHONY: test lint demo bench ci
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
ci:
	.ci/run
