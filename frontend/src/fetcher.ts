// How the page asks: queries over HTTP, subscriptions over a WebSocket to the same address.
import { createGraphiQLFetcher, type Fetcher, type FetcherParams, type Observable } from '@graphiql/toolkit';
import { type FormattedExecutionResult, Kind, type OperationDefinitionNode, parse } from 'graphql';
import { createClient, type ExecutionResult, type Sink } from 'graphql-ws';

const endpoint = new URL('/graphql', location.href);
const socket = new URL(endpoint);
socket.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';

const ask = createGraphiQLFetcher({ url: endpoint.href, enableIncrementalDelivery: false });

export const fetcher: Fetcher = (asked, options) => {
  const operation = operationIn(asked);
  const named = operation ? { ...asked, operationName: operation.name?.value } : asked;
  return operation?.operation === 'subscription' ? watch(named, options?.headers) : ask(named, options);
};

// Found in what is sent: the name that GraphiQL gives lags behind what was pasted, or another tab.
function operationIn({ query, operationName }: FetcherParams): OperationDefinitionNode | undefined {
  let document;
  try {
    document = parse(query);
  } catch {
    return undefined; // the server will say where the mistake is
  }
  const operations = document.definitions.filter((part) => part.kind === Kind.OPERATION_DEFINITION);
  const named = operations.find(({ name }) => name?.value === operationName);
  return named ?? (operations.length === 1 ? operations[0] : undefined);
}

// Each run has a socket of its own, so that the headers typed last are the ones that count. When it
// breaks, it connects and subscribes again, for a minute or so before it gives up.
function watch(asked: FetcherParams, headers: Record<string, unknown> | undefined) {
  const subscribe = (pane: Sink<FormattedExecutionResult>) => {
    const client = createClient({
      url: socket.href,
      connectionParams: headers,
      retryAttempts: 60,
      retryWait: () => new Promise((over) => setTimeout(over, 500 + 1000 * Math.random())),
      shouldRetry: () => true, // also after an error event, which a server that is down causes
    });
    const error = (failure: unknown) => pane.error(failure instanceof Event ? spoken(failure) : failure);
    return { unsubscribe: client.subscribe(asked, { ...pane, error }) };
  };
  // Of the forms that an observable's `subscribe` can have, GraphiQL uses this one.
  return { subscribe } as Observable<ExecutionResult>;
}

function spoken(failure: Event) {
  if (!(failure instanceof CloseEvent)) return { message: `No connection to ${socket.href}` };
  return { message: `The connection was closed: ${failure.code} ${failure.reason}`.trimEnd() };
}
