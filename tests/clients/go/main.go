// Command go calls a server like a Go application, at each given address.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	pb "ebb-cache.io/clients/go/ebb/v1"
)

func main() {
	for _, target := range os.Args[1:] {
		if err := call(target); err != nil {
			log.Fatalf("%s: %v", target, err)
		}
		fmt.Printf("%s: sets and gets, a batch, a megabyte, a pipe, leases, a refusal with its details, deadlines\n", target)
	}
}

func call(target string) error {
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	cache := pb.NewCacheServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	keys := make([][]byte, 200)
	for i := range keys {
		keys[i] = []byte(fmt.Sprintf("%s-%d", target, i))
		value := bytes.Repeat([]byte("v"), i)
		if _, err := cache.Set(ctx, &pb.SetRequest{Key: keys[i], Value: value, TtlMs: 60_000}); err != nil {
			return err
		}
	}
	batch, err := cache.BatchGet(ctx, &pb.BatchGetRequest{Keys: keys})
	if err != nil {
		return err
	}
	for i, result := range batch.Results {
		if len(result.Value) != i {
			return fmt.Errorf("result %d has %d bytes", i, len(result.Value))
		}
	}
	big := bytes.Repeat([]byte("x"), 1_000_000)
	if _, err := cache.Set(ctx, &pb.SetRequest{Key: []byte("big"), Value: big}); err != nil {
		return err
	}
	found, err := cache.Get(ctx, &pb.GetRequest{Key: []byte("big")})
	if err != nil || !bytes.Equal(found.Value, big) {
		return fmt.Errorf("a megabyte is not what was stored: %w", err)
	}
	if err := pipe(ctx, cache); err != nil {
		return err
	}
	if err := leases(ctx, cache, []byte(target)); err != nil {
		return err
	}
	_, err = cache.Get(ctx, &pb.GetRequest{})
	if status.Code(err) != codes.InvalidArgument {
		return fmt.Errorf("an empty key: %v", err)
	}
	info, isInfo := status.Convert(err).Details()[0].(*errdetails.ErrorInfo)
	if !isInfo || info.Domain != "ebb-cache.io" || info.Reason != "FIELD_LENGTH" {
		return fmt.Errorf("details of an empty key: %v", info)
	}
	for i := range 200 {
		limited, cancel := context.WithTimeout(ctx, time.Duration(i+1)*time.Second)
		_, err := cache.Get(limited, &pb.GetRequest{Key: []byte("none")})
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// pipe sends 20,000 operations without waiting for results.
func pipe(ctx context.Context, cache pb.CacheServiceClient) error {
	const operations = 20_000
	stream, err := cache.Pipe(ctx)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		for i := range uint64(operations) {
			get := &pb.PipeRequest_Get{Get: &pb.GetRequest{Key: []byte("none")}}
			if err := stream.Send(&pb.PipeRequest{Id: i, Operation: get}); err != nil {
				sent <- err
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	seen := make(map[uint64]bool)
	for range operations {
		result, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("after %d results: %w", len(seen), err)
		}
		seen[result.Id] = true
	}
	if len(seen) != operations {
		return fmt.Errorf("%d results have different ids", len(seen))
	}
	return <-sent
}

// leases lets 100 callers load one key: one of them loads it.
func leases(ctx context.Context, cache pb.CacheServiceClient, key []byte) error {
	var (
		loads  int
		mutex  sync.Mutex
		group  sync.WaitGroup
		failed error
	)
	load := func() error {
		for {
			request := &pb.GetRequest{Key: key, Lease: &pb.LeaseRequest{TtlMs: 60_000, WaitMs: 20_000}}
			found, err := cache.Get(ctx, request)
			if err != nil {
				return err
			}
			switch {
			case found.Outcome == pb.GetResponse_OUTCOME_HIT && string(found.Value) == "loaded":
				return nil
			case found.Lease.GetState() == pb.Lease_STATE_WON:
				mutex.Lock()
				loads++
				mutex.Unlock()
				condition := &pb.SetRequest_LeaseToken{LeaseToken: found.Lease.Token}
				stored, err := cache.Set(ctx, &pb.SetRequest{Key: key, Value: []byte("loaded"), Condition: condition})
				if err == nil && stored.Outcome != pb.SetResponse_OUTCOME_STORED {
					err = fmt.Errorf("the fill is answered %v", stored.Outcome)
				}
				return err
			case found.Lease.GetState() == pb.Lease_STATE_HELD_BY_OTHER:
				// All calls of the connection wait; ask again.
				time.Sleep(time.Millisecond)
			default:
				return fmt.Errorf("unexpected: %v", found)
			}
		}
	}
	for range 100 {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := load(); err != nil {
				mutex.Lock()
				failed = err
				mutex.Unlock()
			}
		}()
	}
	group.Wait()
	if failed == nil && loads != 1 {
		failed = fmt.Errorf("the key was loaded %d times", loads)
	}
	return failed
}
