// GraphQL Yoga on Node's own HTTP server, as its manual sets it up.
import { createServer } from 'node:http'

import { createSchema, createYoga } from 'graphql-yoga'

import { listening, resolvers, typeDefs } from './market.mjs'

const yoga = createYoga({ schema: createSchema({ typeDefs, resolvers }), logging: false })
createServer(yoga).listen(listening)
