"""The whole story: check, plan, train, predict, measure, show; as events (`run`) and as plain functions (`api`)."""
