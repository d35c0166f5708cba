// Package packaging holds what distributions install beside the binary: the systemd unit.
// Its test boots systemd in a container, installs the unit there and holds it to what
// it promises.
package packaging
