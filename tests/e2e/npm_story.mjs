// From an empty account to previews, events, a cancellation and keys, with Flexprice's own npm SDK.
// Prints as one JSON object what the test compares; URL and key come from the environment.
import { Flexprice } from "@flexprice/sdk";

const api = new Flexprice({
  serverURL: `${process.env.TALLYLOG_URL}/v1`,
  apiKeyAuth: process.env.TALLYLOG_API_KEY,
});
const day = 24 * 3600 * 1000;
const midnight = Math.floor(Date.now() / day) * day;
const start = new Date(midnight - 2 * day).toISOString();
const inside = new Date(midnight - day + day / 4).toISOString();
const before = new Date(midnight - 3 * day).toISOString();

const tiers = [
  { upTo: 100, unitAmount: "1" },
  { unitAmount: "0.5", flatAmount: "2" },
];
const flat = { billingModel: "FLAT_FEE", amount: "0.05" };
const stories = {
  flat: { price: flat },
  package: {
    price: {
      billingModel: "PACKAGE",
      amount: "10",
      transformQuantity: { divideBy: 100, round: "up" },
    },
  },
  volume: { price: { billingModel: "TIERED", tierMode: "VOLUME", tiers } },
  slab: { price: { billingModel: "TIERED", tierMode: "SLAB", tiers } },
  free: { price: flat, limit: 100 },
  cumulative: { price: flat, reset: "NEVER" },
};

async function sell(name, { price, limit, reset = "BILLING_PERIOD" }) {
  const customer = await api.customers.createCustomer({ externalId: `npm-${name}`, name });
  const feature = await api.features.createFeature({
    name,
    type: "metered",
    unitSingular: "credit",
    unitPlural: "credits",
    meter: {
      name,
      eventName: `npm.${name}`,
      aggregation: { type: "SUM", field: "credits" },
      resetUsage: reset,
    },
  });
  const plan = await api.plans.createPlan({ name });
  await api.prices.createPrice({
    entityType: "PLAN",
    entityId: plan.id,
    meterId: feature.meterId,
    type: "USAGE",
    priceUnitType: "FIAT",
    invoiceCadence: "ARREAR",
    billingCadence: "RECURRING",
    billingPeriod: "MONTHLY",
    currency: "USD",
    ...price,
  });
  if (limit !== undefined) {
    await api.entitlements.createEntitlement({
      planId: plan.id,
      featureId: feature.id,
      featureType: "metered",
      usageLimit: limit,
      usageResetPeriod: "MONTHLY",
      isEnabled: true,
    });
  }
  const subscription = await api.subscriptions.createSubscription({
    customerId: customer.id,
    planId: plan.id,
    currency: "USD",
    billingCadence: "RECURRING",
    billingPeriod: "MONTHLY",
    billingCycle: "anniversary",
    startDate: start,
  });
  const event = (timestamp, credits) => ({
    eventName: `npm.${name}`,
    externalCustomerId: `npm-${name}`,
    timestamp,
    properties: { credits },
  });
  await api.events.ingestEvent({ ...event(inside, "24.5"), eventId: `npm-${name}-1` });
  await api.events.ingestEventsBulk({
    events: [event(inside, "100"), event(inside, "0.5"), event(before, "20")],
  });
  return { customer, feature, subscription };
}

async function until(look, isThere) {
  for (const end = Date.now() + 30_000; Date.now() < end; ) {
    const seen = await look();
    if (isThere(seen)) return seen;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("waited in vain");
}

const told = { quantities: {}, totals: {}, charged: {} };
const sold = {};
for (const [name, story] of Object.entries(stories)) sold[name] = await sell(name, story);
for (const [name, { feature, subscription }] of Object.entries(sold)) {
  const usage = { meterId: feature.meterId, externalCustomerId: `npm-${name}` };
  await until(
    () => api.events.getUsageByMeter({ ...usage, startTime: before }),
    (seen) => seen.value === 145,
  );
  const preview = await api.invoices.getInvoicePreview({ subscriptionId: subscription.id });
  told.quantities[name] = preview.lineItems[0].quantity;
  told.totals[name] = preview.total;
  const used = await api.subscriptions.getSubscriptionUsage({ subscriptionId: subscription.id });
  told.charged[name] = used.charges.map((charge) => charge.displayAmount);
}

const { feature, subscription } = sold.flat;
told.usage = (
  await api.events.getUsageStatistics({
    eventName: "npm.flat",
    externalCustomerId: "npm-flat",
    aggregationType: "SUM",
    propertyName: "credits",
    startTime: start,
  })
).value;
const listed = await api.events.listRawEvents({ eventName: "npm.flat", pageSize: 3 });
told.listed = [listed.events.length, listed.hasMore];
told.event = (await api.events.getEvent("npm-flat-1")).status;
const analytics = await api.events.getUsageAnalytics({
  externalCustomerId: "npm-flat",
  startTime: start,
});
told.analytics = analytics.items.map((item) => [item.featureId === feature.id, item.totalUsage]);
const found = await api.features.queryFeature({ featureIds: [feature.id] });
told.features = found.items.map((item) => item.name);
const cancelled = await api.subscriptions.cancelSubscription(subscription.id, {
  cancellationType: "immediate",
});
told.cancelled = cancelled.subscriptionId === subscription.id;
told.status = (await api.subscriptions.getSubscription(subscription.id)).subscriptionStatus;
told.invoices = (await api.invoices.queryInvoice({ subscriptionId: subscription.id })).items.length;
const key = await api.secrets.createApiKey({ name: "npm", type: "private_key" });
told.key = key.apiKey.startsWith("sk_");
await api.secrets.deleteApiKey(key.secret.id);
told.keys = (await api.secrets.listApiKeys()).items.filter((each) => each.name === "npm").length;
try {
  await api.subscriptions.cancelSubscription(subscription.id, { cancellationType: "immediate" });
} catch (error) {
  told.refused = error.statusCode;
}
console.log(JSON.stringify(told));
