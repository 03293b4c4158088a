// The recorder stands in a list of plugins, or in front of one, and writes down each call: one line of JSON per call, with
// its name, the verb, the CNI variables and what came on standard input. It is started under any name.
//
//	RECORDER_LOG         the file to append to
//	RECORDER_REAL_<NAME> a plugin to be instead, once the call is written down
//	RECORDER_FAIL_<NAME> verbs that fail, joined by commas
//
// Without a plugin behind it, it hands the result before it on, as a plugin does that has nothing to add.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	if err := run(); err != nil {
		// As the specification wants it, so that it is seen as what it is in the error of the runtime.
		fmt.Printf(`{"cniVersion": "1.0.0", "code": 100, "msg": %q, "details": "by the recorder"}`, err.Error())
		os.Exit(1)
	}
}

func run() error {
	name, verb := filepath.Base(os.Args[0]), os.Getenv("CNI_COMMAND")
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	var conf struct {
		CNIVersion string          `json:"cniVersion"`
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.Unmarshal(input, &conf); err != nil {
		return err
	}
	if err := note(name, verb, input); err != nil {
		return err
	}
	if slices.Contains(strings.Split(os.Getenv("RECORDER_FAIL_"+name), ","), verb) {
		return fmt.Errorf("%s fails on %s", name, verb)
	}
	if real := os.Getenv("RECORDER_REAL_" + name); real != "" {
		return become(real, input)
	}
	switch verb {
	case "VERSION":
		fmt.Printf(`{"cniVersion": %q, "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}`, conf.CNIVersion)
	case "ADD":
		if conf.PrevResult == nil {
			conf.PrevResult = json.RawMessage(fmt.Sprintf(`{"cniVersion": %q}`, conf.CNIVersion))
		}
		_, err = os.Stdout.Write(conf.PrevResult)
	}
	return err
}

func note(name, verb string, input []byte) error {
	env := map[string]string{}
	for _, pair := range os.Environ() {
		if key, value, _ := strings.Cut(pair, "="); strings.HasPrefix(key, "CNI_") {
			env[key] = value
		}
	}
	line, err := json.Marshal(map[string]any{"plugin": name, "verb": verb, "env": env, "stdin": json.RawMessage(input)})
	if err != nil {
		return err
	}
	log, err := os.OpenFile(os.Getenv("RECORDER_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	_, err = log.Write(append(line, '\n'))
	return err
}

// become is the plugin from here on: a pipe that already holds the input, which is shorter than a pipe, is its standard
// input.
func become(plugin string, input []byte) error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	if _, err := writer.Write(input); err != nil {
		return err
	}
	writer.Close()
	if err := syscall.Dup3(int(reader.Fd()), 0, 0); err != nil {
		return err
	}
	return syscall.Exec(plugin, []string{plugin}, os.Environ())
}
