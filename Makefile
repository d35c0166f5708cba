.PHONY: test ci
test:
	go test ./...
ci:
	.ci/run
