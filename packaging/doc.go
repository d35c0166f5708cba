// Package packaging holds what distributions install beside the binary: systemd's units.
// Its tests boot systemd in a container, install units there and hold them to what
// they promise.
package packaging
