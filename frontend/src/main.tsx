// The GraphiQL page: an explorer of this server's own schema, served from this server's own origin.
import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';
import './page.css';

import { GraphiQL } from 'graphiql';
import { createRoot } from 'react-dom/client';

import bars from './bars.svg';
import { fetcher } from './fetcher';
import liveBars from './live.graphql?raw';
import openingQuery from './opening.graphql?raw';
import { ownStorage } from './storage';

const link = new URLSearchParams(location.search);
const linkedQuery = link.get('query');
// Without this a linked query would run with whatever variables the last visit left behind.
const linkedVariables = link.get('variables') ?? (linkedQuery === null ? null : '');
// A first visit finds a query and something that is live; a link opens by itself.
const tabs = linkedQuery === null ? [openingQuery, liveBars].map((query) => ({ query: query.trimEnd() })) : undefined;

createRoot(document.getElementById('graphiql')!).render(
  <GraphiQL
    fetcher={fetcher}
    storage={ownStorage}
    defaultQuery={openingQuery.trimEnd()}
    defaultTabs={tabs}
    initialQuery={linkedQuery ?? undefined}
    initialVariables={linkedVariables ?? undefined}
    shouldPersistHeaders={false}
    inputValueDeprecation
    schemaDescription
  >
    <GraphiQL.Logo>
      <span className="wordmark">
        <img src={bars} alt="" width="22" height="22" />
        Bargraph
      </span>
    </GraphiQL.Logo>
  </GraphiQL>,
);
