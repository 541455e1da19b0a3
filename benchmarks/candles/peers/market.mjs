// The schema and the bars that both peers serve from memory: the part of ours that is asked for.
import { readFileSync } from 'node:fs'

const [, , port, file] = process.argv
const bars = JSON.parse(readFileSync(file, 'utf8'))
const symbols = Object.keys(bars)
const windows = new Map()

export const listening = { host: '127.0.0.1', port: Number(port) }

export const typeDefs = `
  scalar Timestamp
  input SeriesInput { provider: String! symbol: String! timeframe: String! }
  type Candle {
    time: Timestamp! open: Float! high: Float! low: Float! close: Float! volume: Float!
  }
  type CandleColumns {
    time: [Timestamp!]! open: [Float!]! high: [Float!]! low: [Float!]! close: [Float!]!
    volume: [Float!]!
  }
  type CandleWindow { candles: [Candle!]! columns: CandleColumns! }
  type Symbol {
    symbol: String!
    candles(timeframe: String!, until: Timestamp, last: Int = 100): CandleWindow!
  }
  type SymbolEdge { node: Symbol! }
  type SymbolConnection { edges: [SymbolEdge!]! }
  type Query {
    candles(series: SeriesInput!, until: Timestamp, last: Int = 500): CandleWindow!
    symbols(provider: String!, first: Int = 50): SymbolConnection!
  }
`

export const resolvers = {
  Query: {
    candles: (_, { series, last }) => windowOf(series.symbol, last),
    symbols: (_, { first }) => ({
      edges: symbols.slice(0, first).map((symbol) => ({ node: { symbol } })),
    }),
  },
  Symbol: {
    candles: ({ symbol }, { last }) => windowOf(symbol, last),
  },
}

// Made once for each length, so that a request pays for GraphQL and nothing else.
function windowOf(symbol, last) {
  const key = `${symbol} ${last}`
  let found = windows.get(key)
  if (found === undefined) {
    const columns = {}
    for (const [name, values] of Object.entries(bars[symbol])) columns[name] = values.slice(-last)
    const names = Object.keys(columns)
    const candles = columns.time.map((_, i) =>
      Object.fromEntries(names.map((name) => [name, columns[name][i]])),
    )
    found = { candles, columns }
    windows.set(key, found)
  }
  return found
}
