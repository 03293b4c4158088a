//go:build tools

package main

import _ "github.com/containernetworking/cni/cnitool"
