// Release v1.2.3 of libcni, used by `go build -modfile`; see go.mod.
module flock/tests/libcni/driver

go 1.24.2

require github.com/containernetworking/cni v1.2.3
