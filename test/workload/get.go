package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

// get prints what a server answers. An answer other than OK is an error.
func get(arguments []string, output io.Writer) error {
	if len(arguments) != 1 {
		return errors.New("one address is needed")
	}
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(arguments[0])
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(output, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", arguments[0], response.Status)
	}
	return nil
}
