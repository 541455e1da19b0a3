// Mercurius on Fastify, its just-in-time compiler on from the second request.
import Fastify from 'fastify'
import mercurius from 'mercurius'

import { listening, resolvers, typeDefs } from './market.mjs'

const app = Fastify()
app.register(mercurius, { schema: typeDefs, resolvers, jit: 1 })
await app.listen(listening)
