// A service that knows nothing of Sillage: the loop and the writer that kafka-go's users have.
//
//	kafka-go read SERVER TOPIC GROUP COUNT   prints each message as a line of JSON
//	kafka-go write SERVER TOPIC              publishes each line of JSON
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// Longer than anything takes: nothing that fails hangs for ever.
const patience = 60 * time.Second

// Event is what the service publishes. With Structured, Data is a whole CloudEvent.
type Event struct {
	Aggregate     string          `json:"aggregate"`
	Type          string          `json:"type"`
	CorrelationID string          `json:"correlation"`
	Timestamp     string          `json:"timestamp"`
	Structured    bool            `json:"structured"`
	Data          json.RawMessage `json:"data"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "kafka-go:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	switch {
	case len(args) == 5 && args[0] == "read":
		count, err := strconv.Atoi(args[4])
		if err != nil {
			return err
		}
		return read(ctx, args[1], args[2], args[3], count)
	case len(args) == 3 && args[0] == "write":
		return write(ctx, args[1], args[2])
	}
	return fmt.Errorf("unknown arguments: %q", args)
}

func read(ctx context.Context, server, topic, group string, count int) (err error) {
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers:     []string{server},
		GroupID:     group,
		Topic:       topic,
		StartOffset: kafka.FirstOffset,
		MaxWait:     500 * time.Millisecond,
	})
	defer func() {
		if closed := reader.Close(); err == nil {
			err = closed
		}
	}()
	for n := 0; n < count; n++ {
		message, err := reader.FetchMessage(ctx)
		if err != nil {
			return err
		}
		if err := handle(message); err != nil {
			return err
		}
		if err := reader.CommitMessages(ctx, message); err != nil {
			return err
		}
	}
	return nil
}

func handle(message kafka.Message) error {
	headers := map[string]string{}
	for _, header := range message.Headers {
		headers[header.Key] = string(header.Value)
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"key":       string(message.Key),
		"headers":   headers,
		"data":      json.RawMessage(message.Value),
		"partition": message.Partition,
		"offset":    message.Offset,
	})
}

func write(ctx context.Context, server, topic string) (err error) {
	writer := &kafka.Writer{
		Addr:         kafka.TCP(server),
		Topic:        topic,
		Balancer:     &kafka.Hash{},
		RequiredAcks: kafka.RequireAll,
		BatchTimeout: 10 * time.Millisecond,
	}
	defer func() {
		if closed := writer.Close(); err == nil {
			err = closed
		}
	}()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var event Event
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return err
		}
		if err := writer.WriteMessages(ctx, message(event)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func message(event Event) kafka.Message {
	message := kafka.Message{Key: []byte(event.Aggregate), Value: event.Data}
	if event.Structured {
		message.Headers = []kafka.Header{
			{Key: "content-type", Value: []byte("application/cloudevents+json; charset=UTF-8")},
		}
		return message
	}
	message.Headers = []kafka.Header{
		{Key: "event-type", Value: []byte(event.Type)},
		{Key: "correlation-id", Value: []byte(event.CorrelationID)},
		{Key: "timestamp", Value: []byte(event.Timestamp)},
	}
	return message
}
