// The driver is the smallest runtime that there can be: one call of libcni per run, told on the command line, answered as
// one JSON object on standard output. It is built once per release of libcni that real runtimes carry, so it may use only
// what all of them have; gc.go has the rest.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// call is what the command line says.
type call struct {
	verb string
	list *libcni.NetworkConfigList
	cni  *libcni.CNIConfig
	rt   *libcni.RuntimeConf
	// as is the version to convert a result to; empty for the one that it has.
	as string
	// valid are the attachments that GC keeps; nil when libcni shall get no list at all.
	valid []attachment
}

type attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// answer is what the driver prints.
type answer struct {
	// Version is the one that libcni chose from the list.
	Version string          `json:"version,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *failure        `json:"error,omitempty"`
}

// failure is an error as libcni returns it. Code, Msg and Details are those of the plugin, where libcni kept them.
type failure struct {
	Text    string `json:"text"`
	Code    uint   `json:"code"`
	Msg     string `json:"msg"`
	Details string `json:"details"`
}

func main() {
	var answer answer
	result, version, err := run(os.Args[1:])
	answer.Version = version
	if err == nil && result != nil {
		answer.Result, err = json.Marshal(result)
	}
	if err != nil {
		answer.Error = &failure{Text: err.Error()}
		var plugin *types.Error
		if errors.As(err, &plugin) {
			answer.Error.Code, answer.Error.Msg, answer.Error.Details = plugin.Code, plugin.Msg, plugin.Details
		}
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) (result any, version string, err error) {
	flags := flag.NewFlagSet("driver VERB", flag.ExitOnError)
	conf := flags.String("conf", "", "file with a list of plugins")
	id := flags.String("id", "", "container id")
	netns := flags.String("netns", "", "network namespace")
	ifname := flags.String("ifname", "eth0", "interface")
	args := flags.String("args", "", "CNI_ARGS, as KEY=VALUE;KEY=VALUE")
	capabilities := flags.String("cap", "{}", "capability arguments, a JSON object")
	path := flags.String("path", "", "directories of plugins, joined by colons")
	cache := flags.String("cache", "", "directory of cached results")
	as := flags.String("as", "", "version to convert the result to")
	valid := flags.String("valid", "", "JSON list of attachments that GC keeps; empty for no list")
	if len(arguments) == 0 {
		flags.Usage()
		os.Exit(2)
	}
	if err := flags.Parse(arguments[1:]); err != nil {
		return nil, "", err
	}

	call := call{verb: arguments[0], as: *as}
	call.cni = libcni.NewCNIConfigWithCacheDir(strings.Split(*path, ":"), *cache, nil)
	call.rt = &libcni.RuntimeConf{ContainerID: *id, NetNS: *netns, IfName: *ifname}
	for _, pair := range strings.Split(*args, ";") {
		if key, value, found := strings.Cut(pair, "="); found {
			call.rt.Args = append(call.rt.Args, [2]string{key, value})
		}
	}
	if err := json.Unmarshal([]byte(*capabilities), &call.rt.CapabilityArgs); err != nil {
		return nil, "", err
	}
	if *valid != "" {
		call.valid = []attachment{}
		if err := json.Unmarshal([]byte(*valid), &call.valid); err != nil {
			return nil, "", err
		}
	}
	call.list, err = libcni.ConfListFromFile(*conf)
	if err != nil {
		return nil, "", err
	}
	result, err = call.run(context.Background())
	return result, call.list.CNIVersion, err
}

func (c *call) run(ctx context.Context) (any, error) {
	switch c.verb {
	case "add":
		return c.converted(c.cni.AddNetworkList(ctx, c.list, c.rt))
	case "check":
		return nil, c.cni.CheckNetworkList(ctx, c.list, c.rt)
	case "del":
		return nil, c.cni.DelNetworkList(ctx, c.list, c.rt)
	case "validate":
		return c.cni.ValidateNetworkList(ctx, c.list)
	case "cached-result":
		return c.converted(c.cni.GetNetworkListCachedResult(c.list, c.rt))
	case "del-as-cached":
		// As CRI-O does it: with the configuration and the arguments of the ADD, whatever the file says by now.
		bytes, rt, err := c.cni.GetNetworkListCachedConfig(c.list, c.rt)
		if err != nil {
			return nil, err
		}
		if bytes == nil {
			return nil, errors.New("nothing is cached")
		}
		list, err := libcni.ConfListFromBytes(bytes)
		if err != nil {
			return nil, err
		}
		return nil, c.cni.DelNetworkList(ctx, list, rt)
	default:
		return c.newer(ctx)
	}
}

func (c *call) converted(result types.Result, err error) (any, error) {
	if err != nil || result == nil || c.as == "" {
		return result, err
	}
	return result.GetAsVersion(c.as)
}
