// Prints the documents of manifests as JSON, one array for each file, as kubectl reads them: with the decoder of
// apimachinery, which reads YAML with sigs.k8s.io/yaml. The names of the files come from standard input, one per line.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/util/yaml"
)

func read(path string) ([]json.RawMessage, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	decoder := yaml.NewYAMLOrJSONDecoder(bufio.NewReader(file), 4096)
	documents := []json.RawMessage{}
	for {
		var document json.RawMessage
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF):
			return documents, nil
		case err != nil:
			return nil, err
		case len(document) > 0 && string(document) != "null":
			documents = append(documents, document)
		}
	}
}

func main() {
	names := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for names.Scan() {
		documents, err := read(names.Text())
		if err != nil {
			fmt.Fprintln(os.Stderr, names.Text()+":", err)
			os.Exit(1)
		}
		line, err := json.Marshal(documents)
		if err != nil {
			fmt.Fprintln(os.Stderr, names.Text()+":", err)
			os.Exit(1)
		}
		out.Write(line)
		out.WriteByte('\n')
	}
}
