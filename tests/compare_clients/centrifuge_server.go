// Centrifuge, the engine of Centrifugo, as it is best at this: recovery from Redis streams.
//
// Built from Debian's packages (see __main__.py); run: centrifuge_server PORT REDIS_PORT
package main

import (
	"log"
	"net/http"
	"os"
	"time"

	"github.com/centrifugal/centrifuge"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	port, redis := os.Args[1], "127.0.0.1:"+os.Args[2]
	node, err := centrifuge.New(centrifuge.DefaultConfig)
	check(err)
	node.OnConnect(func(client *centrifuge.Client) {
		client.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{Recover: true}}, nil)
		})
	})
	shard, err := centrifuge.NewRedisShard(node, centrifuge.RedisShardConfig{Address: redis})
	check(err)
	shards := []*centrifuge.RedisShard{shard}
	broker, err := centrifuge.NewRedisBroker(node, centrifuge.RedisBrokerConfig{Shards: shards, UseStreams: true})
	check(err)
	node.SetBroker(broker)
	check(node.Run())
	sockets := centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{})
	http.HandleFunc("/connection/websocket", func(w http.ResponseWriter, r *http.Request) {
		ctx := centrifuge.SetCredentials(r.Context(), &centrifuge.Credentials{UserID: "watcher"})
		sockets.ServeHTTP(w, r.WithContext(ctx))
	})
	http.HandleFunc("/publish", func(w http.ResponseWriter, r *http.Request) {
		data := []byte(`{"n":` + r.URL.Query().Get("n") + `}`)
		if _, err := node.Publish("room", data, centrifuge.WithHistory(10000, 10*time.Minute)); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	check(http.ListenAndServe("127.0.0.1:"+port, nil))
}
