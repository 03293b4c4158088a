//go:build libcni_gc

package main

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// newer has the verbs that came with libcni 1.2.
func (c *call) newer(ctx context.Context) (any, error) {
	switch c.verb {
	case "status":
		return nil, c.cni.GetStatusNetworkList(ctx, c.list)
	case "gc":
		var args *libcni.GCArgs
		if c.valid != nil {
			args = &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
			for _, kept := range c.valid {
				args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment(kept))
			}
		}
		return nil, c.cni.GCNetworkList(ctx, c.list, args)
	case "attachments":
		return c.cni.GetCachedAttachments(c.rt.ContainerID)
	default:
		return nil, errors.New("no such verb: " + c.verb)
	}
}
