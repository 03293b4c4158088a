//go:build !libcni_gc

package main

import (
	"context"
	"errors"
)

// newer has no verbs in this release of libcni.
func (c *call) newer(context.Context) (any, error) {
	return nil, errors.New("no such verb: " + c.verb)
}
