// Command guest is all that the containers of the stories hold: the program that holds a sandbox, and one that talks.
//
//	guest              waits for the end, as a pause program does
//	guest serve PORT   says its container's host name to everyone who connects over TCP, in both families
package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// The first process of a container gets no signal that it does not ask for.
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		listener, err := net.Listen("tcp", ":"+os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		go serve(listener)
	}
	<-end
}

func serve(listener net.Listener) {
	name, _ := os.Hostname()
	for {
		connection, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Fprintln(connection, name)
		connection.Close()
	}
}
