// Command cyclonus answers for the test suite of policies, without any cluster: which cases there are, and who may talk to whom.
//
// `cyclonus cases ADDRESS` prints every generated case as one JSON list, with the address as that of the pod z/c.
//
// `cyclonus verdicts` reads one question a line and prints one answer a line, until its input ends.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// question is what one line asks: each of the probes under these policies.
type question struct {
	Namespaces map[string]map[string]string  `json:"namespaces"`
	Policies   []*networkingv1.NetworkPolicy `json:"policies"`
	Ends       []end                         `json:"ends"`
	Probes     []probe                       `json:"probes"`
}

// end is one address of a pod, or, without a namespace, of somebody else.
type end struct {
	Address   string            `json:"address"`
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels"`
}

// probe names two ends by their places in the list, and where it goes.
type probe struct {
	From     int             `json:"from"`
	To       int             `json:"to"`
	Port     int             `json:"port"`
	Name     string          `json:"name"`
	Protocol corev1.Protocol `json:"protocol"`
}

// answer has one verdict for each probe, in their order, or says why there is none.
type answer struct {
	Allowed []bool `json:"allowed,omitempty"`
	Error   string `json:"error,omitempty"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "cyclonus: %s\n", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[0] == "cases":
		namespaces := []string{"x", "y", "z"}
		all := generator.NewTestCaseGenerator(true, arguments[1], namespaces, nil, nil).GenerateAllTestCases()
		return json.NewEncoder(os.Stdout).Encode(all)
	case len(arguments) == 1 && arguments[0] == "verdicts":
		return verdicts()
	}
	return fmt.Errorf("usage: cyclonus cases ADDRESS | cyclonus verdicts")
}

func verdicts() error {
	lines := bufio.NewReader(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if err := answers.Encode(judge(line)); err != nil {
			return err
		}
	}
}

// judge answers one question. The matcher panics at policies that it takes for invalid.
func judge(line []byte) (given answer) {
	defer func() {
		if reason := recover(); reason != nil {
			given = answer{Error: fmt.Sprint(reason)}
		}
	}()
	var asked question
	if err := json.Unmarshal(line, &asked); err != nil {
		return answer{Error: err.Error()}
	}
	policies := matcher.BuildNetworkPolicies(true, asked.Policies)
	peer := func(n int) *matcher.TrafficPeer {
		of := asked.Ends[n]
		if of.Namespace == "" {
			return &matcher.TrafficPeer{IP: of.Address}
		}
		internal := &matcher.InternalPeer{
			PodLabels:       of.Labels,
			NamespaceLabels: asked.Namespaces[of.Namespace],
			Namespace:       of.Namespace,
		}
		return &matcher.TrafficPeer{Internal: internal, IP: of.Address}
	}
	given.Allowed = make([]bool, len(asked.Probes))
	for n, probe := range asked.Probes {
		traffic := &matcher.Traffic{
			Source:           peer(probe.From),
			Destination:      peer(probe.To),
			ResolvedPort:     probe.Port,
			ResolvedPortName: probe.Name,
			Protocol:         probe.Protocol,
		}
		given.Allowed[n] = policies.IsTrafficAllowed(traffic).IsAllowed()
	}
	return given
}
