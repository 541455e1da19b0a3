// graphql-ws on ws: every subscriber executes every event, from one Redis connection of the process.
import { createServer } from 'node:http'

import { buildSchema } from 'graphql'
import { useServer } from 'graphql-ws/use/ws'
import { Redis } from 'ioredis'
import { WebSocketServer } from 'ws'

const [, , port, socket, channel] = process.argv

const schema = buildSchema(`
  scalar Timestamp
  input SeriesInput { provider: String! symbol: String! timeframe: String! }
  type Candle {
    time: Timestamp! open: Float! high: Float! low: Float! close: Float! volume: Float!
    isClosed: Boolean!
  }
  type BarUpdate { candles: [Candle!]! cursor: String! }
  type FeedStatus { message: String! }
  union BarEvent = BarUpdate | FeedStatus
  type Query { hello: String! }
  type Subscription { bars(series: SeriesInput!): BarEvent! }
`)
schema.getSubscriptionType().getFields().bars.subscribe = () => new Listener()

const listeners = new Set()

// The updates for one subscriber, kept until they are read.
class Listener {
  unread = []
  waiting = null

  constructor() {
    listeners.add(this)
  }

  put(event) {
    if (this.waiting === null) {
      this.unread.push(event)
    } else {
      this.waiting({ value: event, done: false })
      this.waiting = null
    }
  }

  [Symbol.asyncIterator]() {
    return this
  }

  next() {
    if (this.unread.length) return Promise.resolve({ value: this.unread.shift(), done: false })
    return new Promise((resolve) => {
      this.waiting = resolve
    })
  }

  return() {
    listeners.delete(this)
    this.waiting?.({ value: undefined, done: true })
    return Promise.resolve({ value: undefined, done: true })
  }
}

const redis = new Redis({ path: socket })
redis.on('message', (_, text) => {
  const event = { bars: { __typename: 'BarUpdate', ...JSON.parse(text) } }
  for (const listener of listeners) listener.put(event)
})
await redis.subscribe(channel)

const server = createServer((_, response) => response.writeHead(404).end())
useServer({ schema }, new WebSocketServer({ server, path: '/graphql' }))
server.listen(Number(port), '127.0.0.1')
