//go:build tools

// Package tools keeps the programs of a control plane among the requirements of this module, so that `go mod tidy` does
// not drop them. It is never compiled: ../assets builds the programs by their import paths.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
